#pragma once
#include <map>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "plan/issue_order.h"
#include "plan/overwrite.h"
#include "plan/part_sizes.h"
#include "plan/range_table.h"

namespace dynaflow {

/// One use of a storage by one launch.
struct Access {
  RunId run = kNoId;
  int launch = 0;  // index in the run's launches
  bool write = false;
};

/// Bytes that live and die together: a root value (and all that shares its storage) on a range of parts.
struct Storage {
  ValueId root = kNoId;
  PartRange range;
  Root where = Root::kArena;
  int32_t index = kNoId;         // as Slot::index
  std::vector<Access> accesses;  // in issue order
};

/// Decides where every value lives: its storage, and per launch its slots. The values of a root are kept
/// apart by part when no two uses overlap; else one joined storage holds the whole batch and each part is a
/// slice.
class StoragePlanner {
 public:
  /// `launches`: by run of the issue, of choose_launches(), which has filled plan.replacing.
  StoragePlanner(const Schedule& schedule, const Issue& issue, std::vector<std::vector<OpId>> launches,
                 Plan& plan);
  /// Fills plan.runs, slots, outputs and output_storage. Throws PlanError when a part of a value
  /// is no slice.
  void run();
  const std::vector<Storage>& storages() const { return storages_; }
  /// Gives arena storages their buffers, and so every slot that lies in them. `buffers`: by index in
  /// storages(), kNoId for those elsewhere.
  void set_buffers(const std::vector<BufferId>& buffers);

 private:
  void find_outputs();
  void collect_ranges();
  void make_storages();
  void add_storage(ValueId root, PartRange range);
  /// What is known of a root on one range of parts.
  struct Use {
    bool seen = false;
    bool made = false;  // a run makes it there
    bool told = false;  // and its kernel writes where it is told
  };

  Use& use(ValueId value, PartRange range);
  bool needs_joining(ValueId root) const;
  void place_launches();
  OpLaunch make_launch(OpId op, const IssuedRun& issued);
  Delivery choose_delivery(OpId op, const SegmentRun& run);
  void place_outputs();
  Root choose_root(ValueId root, PartRange range) const;
  int32_t add_output_storage(ValueId root, PartRange range);

  std::span<const ValueId> inputs_of(OpId op) const;
  PartRange range_of(ValueId value, const SegmentRun& run) const;
  ValueId root_of(ValueId value) const;
  size_t storage_of(ValueId value, PartRange range) const;
  SlotId slot(ValueId value, PartRange range);
  SharedMeta meta_of(ValueId value, PartRange range, const Storage& storage);
  TensorMeta describe(ValueId value, PartRange range, PartRange held);

  const Schedule& schedule_;
  const Partition& partition_;
  const Graph& graph_;
  const Issue& issue_;
  Plan& plan_;
  int parts_;
  PartSizes sizes_;
  std::vector<std::vector<OpId>> launches_;  // by run: ids of Plan::op

  const OpInputs inputs_;
  std::vector<std::vector<ValueId>> replacing_inputs_;  // by index in plan.replacing
  Overwrites overwrites_;
  std::vector<bool> is_output_;  // by root
  std::vector<bool> is_read_;    // by root
  Ranges ranges_;
  RangeTable<Use> uses_;            // by root
  RangeTable<int32_t> storage_at_;  // by root: the storage that holds it there
  std::vector<Storage> storages_;
  RangeTable<SlotId> slots_;
  std::vector<size_t> slot_storage_;  // by SlotId
  MetaPool pool_;
  std::map<std::tuple<const TensorMeta*, PartRange, PartRange>, SharedMeta>
      metas_;  // of whole storages' slots
};

}  // namespace dynaflow
