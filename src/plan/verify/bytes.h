#pragma once
#include <optional>
#include <span>
#include <vector>

#include "plan/verify/above.h"
#include "plan/verify/order.h"
#include "plan/verify/storages.h"

namespace dynaflow {

/// Follows what every byte holds while a plan's steps are taken in order, and who last used it.
class ByteTracker {
 public:
  ByteTracker(const Plan& plan, const StepOrder& order, const Storages& storages);
  /// The first violation of the plan, in issue order.
  std::optional<Violation> run();

 private:
  /// What bytes are: those of a root value after so many in-place changes. kNoId: nobody's.
  struct Content {
    ValueId root = kNoId;
    int version = 0;
    bool operator==(const Content&) const = default;
  };
  /// Reads that nothing orders among each other: mostly one.
  class Reads {
   public:
    void clear() {
      any_ = false;
      more_.clear();
    }
    /// Adds a read, and drops those that `is_before` says are before it.
    template <typename IsBefore>
    void add(const Site& site, IsBefore is_before) {
      std::erase_if(more_, is_before);
      if (any_ && !is_before(one_)) more_.push_back(one_);
      one_ = site;
      any_ = true;
    }
    /// The first for which `holds`, or none.
    template <typename Holds>
    const Site* find(Holds holds) const {
      if (any_ && holds(one_)) return &one_;
      for (const Site& site : more_)
        if (holds(site)) return &site;
      return nullptr;
    }

   private:
    bool any_ = false;
    Site one_;
    std::vector<Site> more_;
  };
  /// One part of a storage: its bytes, the last write to them as such (step kNoId: none in this run), the
  /// reads since, and what may have written other storage's bytes over them since.
  struct Cell {
    Content content;
    bool freed = false;
    Site write;
    Reads reads;
    Site overwrite;
  };

  void take(int32_t step);
  void take_launch(const Site& site, const OpLaunch& launch);
  void read(const Site& site, SlotId slot, OpId op);
  void read_for_replaced(const Site& site, SlotId slot, const ReplacingOp& replacing);
  void write(const Site& site, SlotId slot, Content content, bool in_place);
  void activate(StorageId id);
  void claim(const Site& site, SlotId slot);
  void free(const Site& site, SlotId slot);
  void use_up(SlotId slot);
  void retire(int32_t now);
  bool over(StorageId id, int32_t now);
  void check_outputs();

  static const Site& culprit(const Cell& cell) {
    return cell.overwrite.step == kNoId ? cell.write : cell.overwrite;
  }
  std::span<Cell> cells_of(SlotId slot);
  std::span<Cell> all_cells_of(StorageId id) {
    return std::span(cells_).subspan(
        first_cell_[static_cast<size_t>(id)],
        static_cast<size_t>(storages_[id].held.second - storages_[id].held.first));
  }
  Content expected(SlotId slot, OpId reader) const;
  bool changes(ValueId root, OpId op) const;
  bool may_overwrite(const OpLaunch& launch) const;
  std::optional<Violation::Kind> unreadable(const Cell& cell, Content expected) const;
  std::optional<Site> unordered(const Cell& cell, const Site& site, bool in_place) const;
  void fail(Violation::Kind kind, const Site& first, const Site& second, SlotId slot);
  Use use(const Site& site) const;

  const Plan& plan_;
  const StepOrder& order_;
  const Storages& storages_;
  Above above_;
  std::vector<bool> elementwise_;               // by OpId
  std::vector<std::vector<OpId>> changes_;      // by root: the ops that change it in place, ascending
  std::vector<Cell> cells_;                     // by storage, by part from the storage's first
  std::vector<size_t> first_cell_;              // by storage
  std::vector<int> uses_left_;                  // by storage
  std::vector<StorageId> storage_of_;           // by buffer, once written
  std::vector<std::vector<StorageId>> shared_;  // by storage: those of the arena that may share its bytes
  std::vector<BufferId> active_;                // written, and met by later steps
  bool retiring_ = false;                       // some of these have had their last use
  std::optional<Violation> violation_;
};

}  // namespace dynaflow
