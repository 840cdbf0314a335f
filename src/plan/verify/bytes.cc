#include "plan/verify/bytes.h"

#include <algorithm>
#include <limits>

namespace dynaflow {

namespace {

constexpr int kAfterLaunches = std::numeric_limits<int>::max();  // the launch number of a free

using Kind = Violation::Kind;

}  // namespace

ByteTracker::ByteTracker(const Plan& plan, const StepOrder& order, const Storages& storages)
    : plan_(plan),
      order_(order),
      storages_(storages),
      above_(plan.buffers),
      elementwise_(elementwise_ops(*plan.graph)),
      changes_(plan.graph->values.size()),
      storage_of_(plan.buffers.size(), kNoId),
      shared_(storages.size()) {
  const Graph& graph = *plan.graph;
  for (OpId op = 0; op < static_cast<OpId>(graph.ops.size()); ++op)
    for (ValueId value : graph.ops[op].effects.writes) {
      std::vector<OpId>& changes = changes_[storage_root(graph, value)];
      if (changes.empty() || changes.back() != op) changes.push_back(op);
    }
  for (StorageId id = 0; id < static_cast<StorageId>(storages.size()); ++id) {
    const StorageUse& storage = storages[id];
    first_cell_.push_back(cells_.size());
    uses_left_.push_back(storage.uses);
    Cell cell;
    if (storage.root == Root::kArgument || storage.root == Root::kConstant) cell.content.root = storage.first;
    cells_.resize(cells_.size() + static_cast<size_t>(storage.held.second - storage.held.first), cell);
  }
}

std::optional<Violation> ByteTracker::run() {
  for (int32_t step = 0; step < static_cast<int32_t>(order_.steps().size()) && !violation_; ++step)
    take(step);
  if (!violation_) check_outputs();
  return std::move(violation_);
}

void ByteTracker::take(int32_t id) {
  const Step& step = order_.steps()[static_cast<size_t>(id)];
  if (step.kind == Instruction::Kind::kFree) return free({id, kAfterLaunches}, step.id);
  const Run& run = plan_.runs[step.id];
  for (size_t i = 0; i < run.launches.size() && !violation_; ++i) {
    take_launch({id, static_cast<int32_t>(i)}, run.launches[i]);
    retire(id);
  }
}

bool ByteTracker::changes(ValueId root, OpId op) const {
  return std::binary_search(changes_[root].begin(), changes_[root].end(), op);
}

/// What `reader` is to find under a slot: the changes that come before it in the program.
ByteTracker::Content ByteTracker::expected(SlotId slot, OpId reader) const {
  const ValueId root = storage_root(*plan_.graph, plan_.slots[static_cast<size_t>(slot)].value);
  const std::vector<OpId>& changes = changes_[root];
  return {root, static_cast<int>(std::lower_bound(changes.begin(), changes.end(), reader) - changes.begin())};
}

void ByteTracker::take_launch(const Site& site, const OpLaunch& launch) {
  const Op& op = plan_.op(launch.op);
  const auto own = static_cast<OpId>(plan_.graph->ops.size());
  for (SlotId slot : launch.inputs) {
    if (launch.op < own) read(site, slot, launch.op);
    if (launch.op >= own)
      read_for_replaced(site, slot, plan_.replacing[static_cast<size_t>(launch.op - own)]);
  }
  for (SlotId slot : launch.inputs) {
    const Content before = expected(slot, launch.op);
    if (changes(before.root, launch.op)) write(site, slot, {before.root, before.version + 1}, true);
  }
  const bool in_place = launch.delivery == Delivery::kInPlace || may_overwrite(launch);
  for (size_t i = 0; i < launch.outputs.size(); ++i) {
    const bool same_bytes = plan_.graph->values[op.outputs[i]].alias_of != kNoId;
    if (launch.outputs[i] != kNoId && !same_bytes)
      write(site, launch.outputs[i], {op.outputs[i], 0}, in_place);
  }
  for (const std::vector<SlotId>* slots : {&launch.inputs, &launch.outputs})
    for (SlotId slot : *slots)
      if (slot != kNoId) use_up(slot);
}

/// Whether the op reads each element that it writes only to compute that very element.
bool ByteTracker::may_overwrite(const OpLaunch& launch) const {
  if (launch.delivery != Delivery::kOverInput || launch.outputs.size() != 1 || launch.outputs[0] == kNoId)
    return false;
  const auto id = static_cast<size_t>(launch.op);
  if (id >= elementwise_.size() || !elementwise_[id]) return false;
  const auto slot = [this](SlotId slot) -> const Slot& { return plan_.slots[static_cast<size_t>(slot)]; };
  return std::all_of(launch.inputs.begin(), launch.inputs.end(), [&](SlotId input) {
    return storages_.of(input) != storages_.of(launch.outputs[0]) ||
           slot(input).meta == slot(launch.outputs[0]).meta;
  });
}

void ByteTracker::use_up(SlotId slot) {
  if (--uses_left_[static_cast<size_t>(storages_.of(slot))] == 0) retiring_ = true;
}

std::span<ByteTracker::Cell> ByteTracker::cells_of(SlotId id) {
  const Slot& slot = plan_.slots[static_cast<size_t>(id)];
  const StorageId storage = storages_.of(id);
  if (!storages_[storage].rows) return all_cells_of(storage);
  return all_cells_of(storage).subspan(static_cast<size_t>(slot.first_part - storages_[storage].held.first),
                                       static_cast<size_t>(slot.last_part - slot.first_part));
}

/// Why a reader would not find what it expects, though it comes after the last write.
std::optional<Kind> ByteTracker::unreadable(const Cell& cell, Content expected) const {
  if (cell.freed) return Kind::kFreed;
  if (cell.content == expected) return std::nullopt;
  if (cell.content.root == expected.root) return Kind::kStale;
  if (cell.overwrite.step != kNoId || cell.content.root != kNoId) return Kind::kOverwritten;
  return Kind::kUnwritten;
}

void ByteTracker::read(const Site& site, SlotId slot, OpId op) {
  const Content content = expected(slot, op);
  for (Cell& cell : cells_of(slot)) {
    if (cell.write.step != kNoId && !order_.before(cell.write, site))
      return fail(Kind::kRace, cell.write, site, slot);
    if (const auto kind = unreadable(cell, content)) return fail(*kind, culprit(cell), site, slot);
    if (!storages_[storages_.of(slot)].written) continue;  // nobody will ever look for its readers
    cell.reads.add(site, [&](const Site& other) { return order_.before(other, site); });
  }
}

/// A kernel in place of several ops has to find what each of them would.
void ByteTracker::read_for_replaced(const Site& site, SlotId slot, const ReplacingOp& replacing) {
  const ValueId value = plan_.slots[static_cast<size_t>(slot)].value;
  for (OpId op : replacing.ops) {
    const std::vector<ValueId> inputs = op_inputs(plan_.graph->ops[op]);
    if (std::find(inputs.begin(), inputs.end(), value) != inputs.end()) read(site, slot, op);
  }
}

/// The first use of a cell that is not surely over when `site` begins. An op may write what it reads itself,
/// and several views of one storage.
std::optional<Site> ByteTracker::unordered(const Cell& cell, const Site& site, bool in_place) const {
  const auto conflicts = [&](const Site& use) {
    const bool own = in_place && use.step == site.step && use.launch == site.launch;
    return !own && !order_.before(use, site);
  };
  if (cell.write.step != kNoId && conflicts(cell.write)) return cell.write;
  const Site* other = cell.reads.find(conflicts);
  return other == nullptr ? std::nullopt : std::optional(*other);
}

void ByteTracker::write(const Site& site, SlotId slot, Content content, bool in_place) {
  for (Cell& cell : cells_of(slot)) {
    if (const auto other = unordered(cell, site, in_place)) return fail(Kind::kRace, *other, site, slot);
    if (cell.freed) return fail(Kind::kFreed, cell.write, site, slot);
    cell.content = content;
    cell.write = site;
    cell.overwrite = {};
    cell.reads.clear();
  }
  if (plan_.slots[static_cast<size_t>(slot)].root == Root::kArena) claim(site, slot);
}

/// Notes which buffers in use may lie where this one does.
void ByteTracker::activate(StorageId id) {
  const BufferId buffer = storages_[id].index;
  if (storage_of_[static_cast<size_t>(buffer)] != kNoId) return;
  storage_of_[static_cast<size_t>(buffer)] = id;
  for (BufferId other : active_) {
    if (above_.apart(buffer, other)) continue;
    const StorageId storage = storage_of_[static_cast<size_t>(other)];
    shared_[static_cast<size_t>(id)].push_back(storage);
    shared_[static_cast<size_t>(storage)].push_back(id);
  }
  active_.push_back(buffer);
}

/// Takes the bytes under a slot's buffer from all other buffers that may lie there.
void ByteTracker::claim(const Site& site, SlotId slot) {
  const StorageId own = storages_.of(slot);
  activate(own);
  for (StorageId other : shared_[static_cast<size_t>(own)]) {
    for (Cell& cell : all_cells_of(other)) {
      if (const auto user = unordered(cell, site, false)) return fail(Kind::kRace, *user, site, slot);
      cell.content = {};
      cell.overwrite = site;
    }
  }
}

/// Nothing will use a storage again, and every later step knows that its uses are over.
bool ByteTracker::over(StorageId id, int32_t now) {
  if (uses_left_[static_cast<size_t>(id)] > 0) return false;
  const auto unknown = [&](const Site& site) {
    return site.step != kNoId && !order_.before_all_after(site.step, now);
  };
  const std::span<const Cell> cells = all_cells_of(id);
  return std::none_of(cells.begin(), cells.end(), [&](const Cell& cell) {
    return unknown(cell.write) || cell.reads.find(unknown) != nullptr;
  });
}

/// Forgets buffers that no later step can meet.
void ByteTracker::retire(int32_t now) {
  if (!retiring_) return;
  retiring_ = false;
  std::erase_if(active_, [&](BufferId buffer) {
    const StorageId id = storage_of_[static_cast<size_t>(buffer)];
    if (over(id, now)) return true;
    retiring_ |= uses_left_[static_cast<size_t>(id)] == 0;
    return false;
  });
}

void ByteTracker::free(const Site& site, SlotId slot) {
  for (Cell& cell : all_cells_of(storages_.of(slot))) {
    if (cell.freed) return fail(Kind::kFreed, cell.write, site, slot);
    if (const auto other = unordered(cell, site, false)) return fail(Kind::kRace, *other, site, slot);
    cell.freed = true;
    cell.write = site;
    cell.reads.clear();
  }
}

void ByteTracker::check_outputs() {
  const auto end = static_cast<OpId>(plan_.graph->ops.size());
  for (const PlanOutput& output : plan_.outputs) {
    if (output.kind != PlanOutput::Kind::kSlot) continue;
    for (const Cell& cell : cells_of(output.slot))
      if (const auto kind = unreadable(cell, expected(output.slot, end)))
        return fail(*kind, culprit(cell), {}, output.slot);
  }
}

Use ByteTracker::use(const Site& site) const {
  if (site.step == kNoId) return {kNoId, "the caller"};
  const Step& step = order_.steps()[static_cast<size_t>(site.step)];
  const std::string& stream = plan_.streams[static_cast<size_t>(step.stream)].name;
  if (step.kind == Instruction::Kind::kFree) return {kNoId, formatted("a free on stream '{}'", stream)};
  const Run& run = plan_.runs[step.id];
  const Op& op = plan_.op(run.launches[static_cast<size_t>(site.launch)].op);
  return {step.id, formatted("'{}' ({} on stream '{}')", run.name, op.target, stream)};
}

void ByteTracker::fail(Kind kind, const Site& first, const Site& second, SlotId slot) {
  const Use a = use(first);
  const Use b = use(second);
  const std::string where =
      formatted("%{} in {}", plan_.graph->values[plan_.slots[static_cast<size_t>(slot)].value].name,
                storages_.name(storages_.of(slot)));
  std::string message;
  switch (kind) {
    case Kind::kRace:
      message = formatted(
          "{} and {} use the bytes of {}, one of them writes, and nothing orders them: the "
          "second has to wait for the first",
          a.what, b.what, where);
      break;
    case Kind::kOverwritten:
      message = formatted("{} reads {} after {} wrote over it", b.what, where, a.what);
      break;
    case Kind::kUnwritten:
      message = formatted("{} reads {}, where nothing was written", b.what, where);
      break;
    case Kind::kStale:
      message = formatted(
          "{} reads {} before or after another in-place change than in the program; the "
          "last was by {}",
          b.what, where, a.what);
      break;
    default:
      message = formatted("{} uses {} after {}", b.what, where, a.what);
  }
  violation_ = Violation{kind, a, b, std::move(message)};
}

}  // namespace dynaflow
