#include "plan/storage.h"

#include <algorithm>

namespace dynaflow {

namespace {

constexpr size_t kUsualAccesses = 4;  // of one storage: made by one op, read by few

std::vector<PartRange> ranges_of(const Issue& issue, int parts) {
  std::vector<PartRange> ranges{{0, parts}};
  for (const IssuedRun& issued : issue.runs) ranges.emplace_back(issued.run.first_part, issued.run.last_part);
  return ranges;
}

}  // namespace

StoragePlanner::StoragePlanner(const Schedule& schedule, const Issue& issue,
                               std::vector<std::vector<OpId>> launches, Plan& plan)
    : schedule_(schedule),
      partition_(*schedule.partition),
      graph_(*schedule.partition->graph),
      issue_(issue),
      plan_(plan),
      parts_(schedule.cut.parts),
      sizes_(graph_, parts_),
      launches_(std::move(launches)),
      inputs_(graph_),
      overwrites_(find_overwrites(plan, inputs_, partition_.split.layouts)),
      is_output_(graph_.values.size(), false),
      is_read_(graph_.values.size(), false),
      ranges_(ranges_of(issue, parts_)),
      uses_(graph_.values.size(), ranges_, {}),
      storage_at_(graph_.values.size(), ranges_, kNoId),
      slots_(graph_.values.size(), ranges_, kNoId) {
  for (const ReplacingOp& replacing : plan.replacing) replacing_inputs_.push_back(op_inputs(replacing.op));
}

void StoragePlanner::run() {
  find_outputs();
  collect_ranges();
  make_storages();
  place_launches();
  place_outputs();
}

ValueId StoragePlanner::root_of(ValueId value) const { return overwrites_.root[value]; }

void StoragePlanner::find_outputs() {
  for (const Arg& output : graph_.outputs)
    if (const auto* ref = std::get_if<ValueRef>(&output.data)) is_output_[root_of(ref->id)] = true;
}

std::span<const ValueId> StoragePlanner::inputs_of(OpId id) const {
  const size_t own = graph_.ops.size();
  return static_cast<size_t>(id) < own ? inputs_[id] : replacing_inputs_[static_cast<size_t>(id) - own];
}

PartRange StoragePlanner::range_of(ValueId value, const SegmentRun& run) const {
  return partition_.split.layouts[value].is_per_part() ? PartRange{run.first_part, run.last_part}
                                                       : PartRange{0, parts_};
}

void StoragePlanner::collect_ranges() {
  for (size_t run = 0; run < issue_.runs.size(); ++run) {
    const IssuedRun& issued = issue_.runs[run];
    for (OpId id : launches_[run]) {
      const Op& op = plan_.op(id);
      for (ValueId value : inputs_of(id)) {
        use(value, range_of(value, issued.run));
        is_read_[root_of(value)] = true;
      }
      for (ValueId value : op.outputs) {
        Use& made = use(value, range_of(value, issued.run));
        if (root_of(value) == value) made = {true, true, writes_where_told(op)};
      }
    }
  }
  for (const Arg& output : graph_.outputs)
    if (const auto* ref = std::get_if<ValueRef>(&output.data)) use(ref->id, {0, parts_});
}

StoragePlanner::Use& StoragePlanner::use(ValueId value, PartRange range) {
  Use& found = uses_.at(root_of(value), ranges_.number(range));
  found.seen = true;
  return found;
}

bool StoragePlanner::needs_joining(ValueId root) const {
  int end = 0;
  for (size_t range = 0; range < ranges_.size(); ++range) {
    if (!uses_.at(root, range).seen) continue;
    if (ranges_[range].first < end) return true;
    end = ranges_[range].second;
  }
  return false;
}

int32_t StoragePlanner::add_output_storage(ValueId root, PartRange range) {
  const TensorMeta& meta = graph_.values[root].meta;
  plan_.output_storage.push_back({meta.dtype, sizes_.of(storage_elements(meta), range)});
  return static_cast<int32_t>(plan_.output_storage.size()) - 1;
}

Root StoragePlanner::choose_root(ValueId root, PartRange range) const {
  const Value& value = graph_.values[root];
  if (value.origin == Origin::kConstant) return Root::kConstant;
  if (value.origin != Origin::kOp) return Root::kArgument;
  // A fresh result is kept as it is, unless several must come together in one storage.
  const Use& use = uses_.at(root, ranges_.number(range));
  if (use.made && !use.told) return Root::kKernel;
  return is_output_[root] ? Root::kOutput : Root::kArena;
}

void StoragePlanner::make_storages() {
  for (ValueId root = 0; root < static_cast<ValueId>(graph_.values.size()); ++root) {
    const bool caller = graph_.values[root].origin != Origin::kOp;
    const bool joined = caller || needs_joining(root);
    for (size_t range = 0; range < ranges_.size(); ++range) {
      if (!uses_.at(root, range).seen) continue;
      add_storage(root, joined ? PartRange{0, parts_} : ranges_[range]);
      if (joined) break;
    }
  }
}

void StoragePlanner::add_storage(ValueId root, PartRange range) {
  Storage storage{root, range, choose_root(root, range), kNoId, {}};
  if (graph_.values[root].origin != Origin::kOp) storage.index = graph_.values[root].index;
  if (storage.where == Root::kOutput) storage.index = add_output_storage(root, range);
  for (size_t inner = 0; inner < ranges_.size(); ++inner)
    if (range.first <= ranges_[inner].first && ranges_[inner].second <= range.second)
      storage_at_.at(root, inner) = static_cast<int32_t>(storages_.size());
  storage.accesses.reserve(kUsualAccesses);
  storages_.push_back(std::move(storage));
}

size_t StoragePlanner::storage_of(ValueId value, PartRange range) const {
  const int32_t found = storage_at_.at(root_of(value), ranges_.number(range));
  DF_CHECK(found != kNoId, "%{} has no storage for parts [{}, {})", graph_.values[value].name, range.first,
           range.second);
  return static_cast<size_t>(found);
}

/// Sizes are those of the slot's own rows; strides and offset those of the storage's, moved to the first row.
TensorMeta StoragePlanner::describe(ValueId value, PartRange range, PartRange held) {
  const TensorMeta& meta = graph_.values[value].meta;
  TensorMeta own{meta.dtype, {}, {}, sizes_.of(meta.offset, held)};
  own.shape.reserve(meta.shape.size());
  own.strides.reserve(meta.strides.size());
  for (const SizeExpr& size : meta.shape) own.shape.push_back(sizes_.of(size, range));
  for (const SizeExpr& stride : meta.strides) own.strides.push_back(sizes_.of(stride, held));
  if (range == held) return own;
  const Layout& layout = partition_.split.layouts[value];
  if (layout.kind != Layout::Kind::kShard || !(layout.outer == SizeExpr(1)))
    throw PlanError(
        formatted("parts [{}, {}) of %{} are no slice of the batch (layout {}): run its segment and "
                  "those that read it on the same parts",
                  range.first, range.second, graph_.values[value].name, print(layout)));
  SizeExpr rows;
  for (int part = held.first; part < range.first; ++part) rows = rows + SizeExpr::symbol(part_symbol(part));
  const auto dim = static_cast<size_t>(layout.dim);
  own.offset = own.offset + rows * sizes_.of(layout.inner, range) * own.strides[dim];
  return own;
}

SharedMeta StoragePlanner::meta_of(ValueId value, PartRange range, const Storage& storage) {
  if (range != storage.range) return pool_.share(describe(value, range, storage.range));
  const auto [entry, added] = metas_.try_emplace({&*graph_.values[value].meta, range, storage.range});
  if (added) entry->second = pool_.share(describe(value, range, storage.range));
  return entry->second;
}

SlotId StoragePlanner::slot(ValueId value, PartRange range) {
  SlotId& known = slots_.at(value, ranges_.number(range));
  if (known != kNoId) return known;
  const auto id = static_cast<SlotId>(plan_.slots.size());
  known = id;
  const size_t storage_id = storage_of(value, range);
  const Storage& storage = storages_[storage_id];
  Slot result;
  result.value = value;
  result.first_part = range.first;
  result.last_part = range.second;
  result.root = storage.where;
  result.index = storage.index;
  result.meta = meta_of(value, range, storage);
  plan_.slots.push_back(std::move(result));
  slot_storage_.push_back(storage_id);
  return id;
}

Delivery StoragePlanner::choose_delivery(OpId id, const SegmentRun& run) {
  const Op& op = plan_.op(id);
  bool fresh = false;
  bool copied = false;
  bool aliased = !op.outputs.empty();
  for (ValueId value : op.outputs) {
    aliased &= graph_.values[value].alias_of != kNoId;
    const Root where = storages_[storage_of(value, range_of(value, run))].where;
    fresh |= where == Root::kKernel;
    copied |= where != Root::kKernel;
  }
  const bool overwrites = static_cast<size_t>(id) < overwrites_.op.size() && overwrites_.op[id];
  if (overwrites && op.kind != OpKind::kCollective) return Delivery::kOverInput;
  if (overwrites || aliased) return Delivery::kInPlace;
  if (!fresh && writes_where_told(op)) return Delivery::kOut;
  return copied ? Delivery::kCopy : Delivery::kFresh;
}

OpLaunch StoragePlanner::make_launch(OpId id, const IssuedRun& issued) {
  const Op& op = plan_.op(id);
  OpLaunch launch;
  launch.op = id;
  const std::span<const ValueId> inputs = inputs_of(id);
  launch.inputs.reserve(inputs.size());
  for (ValueId value : inputs) launch.inputs.push_back(slot(value, range_of(value, issued.run)));
  launch.outputs.reserve(op.outputs.size());
  for (ValueId value : op.outputs) {
    const PartRange range = range_of(value, issued.run);
    Storage& storage = storages_[storage_of(value, range)];
    if (storage.where == Root::kKernel && !is_read_[storage.root] && !is_output_[storage.root]) {
      launch.outputs.push_back(kNoId);
      continue;
    }
    const SlotId made = slot(value, range);
    launch.outputs.push_back(made);
    const bool source = storage.where == Root::kKernel && storage.root == value && storage.index == kNoId;
    if (source) storage.index = made;
    if (storage.where == Root::kKernel) plan_.slots[made].index = storage.index;
  }
  launch.delivery = choose_delivery(id, issued.run);
  return launch;
}

void StoragePlanner::place_launches() {
  plan_.runs.reserve(issue_.runs.size());
  plan_.slots.reserve(storages_.size());
  for (RunId id = 0; id < static_cast<RunId>(issue_.runs.size()); ++id) {
    const IssuedRun& issued = issue_.runs[id];
    Run run;
    run.segments = issued.run.segments;
    run.first_part = issued.run.first_part;
    run.last_part = issued.run.last_part;
    run.stream = issued.run.stream;
    run.name = launch_name(schedule_, issued.run);
    if (is_split(schedule_, issued.run))
      run.name = issued.run.parts() == 1
                     ? formatted("mb{}/{}", run.first_part, run.name)
                     : formatted("mb{}-{}/{}", run.first_part, run.last_part - 1, run.name);
    run.launches.reserve(launches_[static_cast<size_t>(id)].size());
    for (OpId op : launches_[static_cast<size_t>(id)]) {
      const int position = static_cast<int>(run.launches.size());
      OpLaunch launch = make_launch(op, issued);
      for (SlotId input : launch.inputs)
        storages_[slot_storage_[static_cast<size_t>(input)]].accesses.push_back({id, position, false});
      for (SlotId output : launch.outputs)
        if (output != kNoId)
          storages_[slot_storage_[static_cast<size_t>(output)]].accesses.push_back({id, position, true});
      run.launches.push_back(std::move(launch));
    }
    plan_.runs.push_back(std::move(run));
  }
}

void StoragePlanner::place_outputs() {
  for (const Arg& output : graph_.outputs) {
    PlanOutput result;
    if (const auto* ref = std::get_if<ValueRef>(&output.data)) {
      result.kind = PlanOutput::Kind::kSlot;
      result.slot = slot(ref->id, {0, parts_});
    } else if (const auto* size = std::get_if<SizeExpr>(&output.data)) {
      result.kind = PlanOutput::Kind::kSize;
      result.size = *size;
    }
    plan_.outputs.push_back(std::move(result));
  }
}

void StoragePlanner::set_buffers(const std::vector<BufferId>& buffers) {
  for (size_t id = 0; id < storages_.size(); ++id)
    if (buffers[id] != kNoId) storages_[id].index = buffers[id];
  for (size_t id = 0; id < plan_.slots.size(); ++id) {
    const BufferId buffer = buffers[slot_storage_[id]];
    if (buffer != kNoId) plan_.slots[id].index = buffer;
  }
}

}  // namespace dynaflow
