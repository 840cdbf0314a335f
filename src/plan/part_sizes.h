#pragma once
#include <unordered_map>

#include "dynaflow/plan.h"

namespace dynaflow {

/// Sizes of a graph as some parts of its batch see them: on_parts(), worked out once for each size and range.
/// Not thread-safe.
class PartSizes {
 public:
  PartSizes(const Graph& graph, int parts) : graph_(graph), parts_(parts) {}

  SizeExpr of(const SizeExpr& expr, PartRange range) {
    if (expr.terms().empty()) return expr;
    const auto [entry, added] = known_.try_emplace({expr, range});
    if (added) entry->second = on_parts(graph_, expr, range.first, range.second, parts_);
    return entry->second;
  }

 private:
  struct Key {
    SizeExpr expr;
    PartRange range;
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    size_t operator()(const Key& key) const {
      const auto [first, last] = key.range;
      return hash_of(key.expr) ^ (static_cast<size_t>(first) << 20) ^ (static_cast<size_t>(last) << 40);
    }
  };

  const Graph& graph_;
  int parts_;
  std::unordered_map<Key, SizeExpr, Hash> known_;
};

}  // namespace dynaflow
