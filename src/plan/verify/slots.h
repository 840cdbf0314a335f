#pragma once
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "dynaflow/verify.h"
#include "plan/verify/geometry.h"
#include "plan/verify/storages.h"

namespace dynaflow {

/// Checks that every slot lies where its value is, that every value fits its storage, and that a run keeps to
/// slots of its own parts or of all. Equal layers ask the same questions: each is answered once.
class SlotChecker {
 public:
  SlotChecker(const Plan& plan, const Storages& storages)
      : plan_(plan), storages_(storages), geometry_(plan) {}
  /// The first slot or storage that is wrong.
  std::optional<Violation> run();

 private:
  using Question = std::vector<int32_t>;
  struct Hash {
    size_t operator()(const SizeExpr& expr) const { return hash_of(expr); }
    size_t operator()(const Question& question) const;
  };

  std::optional<Violation> check_slot(SlotId slot);
  std::optional<Violation> check_run(RunId run) const;
  std::optional<Violation> check_room(StorageId storage, ValueId value);
  int32_t id_of(const SizeExpr& expr);
  int32_t id_of(const SharedMeta& meta);
  bool is_new() { return asked_.insert(question_).second; }

  const Plan& plan_;
  const Storages& storages_;
  Geometry geometry_;
  std::unordered_map<SizeExpr, int32_t, Hash> exprs_;
  std::unordered_map<const TensorMeta*, int32_t> metas_;
  std::unordered_set<Question, Hash> asked_;
  Question question_;
};

}  // namespace dynaflow
