#include "proof/oracle_model.h"

#include <algorithm>
#include <tuple>

namespace dynaflow::test {

namespace {

using Kind = Instruction::Kind;

int64_t end_byte(const Area& area) {
  int64_t end = area.base + area.item;
  for (size_t d = 0; d < area.sizes.size(); ++d)
    end += std::max<int64_t>(area.sizes[d] - 1, 0) * area.strides[d] * area.item;
  return end;
}

bool same_storage(const Slot& a, const Slot& b) { return a.root == b.root && a.index == b.index; }

}  // namespace

Mark State::key() const {
  Mark key = memory.digest();
  for (const Actor& actor : actors)
    for (const Mark part : {Mark{actor.next}, Mark{actor.launch}, Mark{actor.began}}) key = mix(key, part);
  for (const size_t count : queued) key = mix(key, count);
  return key;
}

OracleModel::OracleModel(PlanPtr plan, const std::vector<int64_t>& symbols)
    : plan_(std::move(plan)), elementwise_(elementwise_ops(*plan_->graph)) {
  elementwise_.resize(elementwise_.size() + plan_->replacing.size(), false);
  place_slots(symbols);
  make_programs();
  read_launches();
  if (misplaced_.empty()) find_right_reads();
}

void OracleModel::make_programs() {
  const auto is = [](StreamKind kind) {
    return [kind](const Stream& stream) { return stream.kind == kind; };
  };
  programs_.push_back(
      merge_streams(*plan_, [&](const Stream& stream) { return !is(StreamKind::kThread)(stream); }));
  for (const Stream& stream : plan_->streams)
    if (is(StreamKind::kThread)(stream))
      programs_.push_back(merge_streams(*plan_, [&](const Stream& other) { return &other == &stream; }));
  threads_ = programs_.size();
  for (StreamId id = 0; id < static_cast<StreamId>(plan_->streams.size()); ++id) {
    const bool async = is(StreamKind::kAsync)(plan_->streams[id]);
    queue_of_.push_back(async ? programs_.size() : 0);
    if (!async) continue;
    Program items;
    for (const Step& step : programs_[0])
      if (step.stream == id && (step.kind == Kind::kLaunch || step.kind == Kind::kFree))
        items.push_back(step);
    programs_.push_back(std::move(items));
  }
}

/// A size on the rows of parts [first, last).
int64_t OracleModel::value(const SizeExpr& expr, int first, int last) const {
  return expr.evaluate([&](std::string_view name) {
    if (name != plan_->graph->batch_symbol) return sizes_.find(name)->second;
    int64_t sum = 0;
    for (int part = first; part < last; ++part) sum += rows_[static_cast<size_t>(part)];
    return sum;
  });
}

Area OracleModel::area(const Slot& slot, int64_t base) const {
  Area area;
  area.item = item_size(plan_->graph->values[slot.value].meta->dtype);
  area.base = base + value(slot.meta->offset) * area.item;
  for (const SizeExpr& size : slot.meta->shape) area.sizes.push_back(value(size));
  for (const SizeExpr& stride : slot.meta->strides) area.strides.push_back(value(stride));
  return area;
}

/// Parts that never meet in a value have memory of their own; else one holds the whole batch, and each part
/// is a slice of it.
std::pair<int, int> OracleModel::own_range(const Slot& slot) const {
  const ValueId root = storage_root(*plan_->graph, slot.value);
  const bool caller = slot.root == Root::kArgument || slot.root == Root::kConstant;
  for (const Slot& other : plan_->slots) {
    const bool same = other.first_part == slot.first_part && other.last_part == slot.last_part;
    const bool apart = other.last_part <= slot.first_part || slot.last_part <= other.first_part;
    if (caller || (storage_root(*plan_->graph, other.value) == root && !same && !apart))
      return {0, plan_->cut.parts};
  }
  return {slot.first_part, slot.last_part};
}

/// The slot's elements where its root value has memory of its own for the parts of `range`.
Area OracleModel::own_area(const Slot& slot, std::pair<int, int> range) const {
  const TensorMeta& meta = plan_->graph->values[slot.value].meta;
  Area area;
  area.item = item_size(meta.dtype);
  int64_t offset = value(meta.offset, range.first, range.second);
  for (size_t d = 0; d < meta.shape.size(); ++d) {
    area.sizes.push_back(value(meta.shape[d], slot.first_part, slot.last_part));
    area.strides.push_back(value(meta.strides[d], range.first, range.second));
    if (slot.first_part > range.first && meta.shape[d].depends_on(plan_->graph->batch_symbol))
      offset += value(meta.shape[d], range.first, slot.first_part) * area.strides[d];
  }
  area.base = offset * area.item;
  return area;
}

void OracleModel::bind_sizes(const std::vector<int64_t>& symbols) {
  const Graph& graph = *plan_->graph;
  int64_t batch = 1;
  for (size_t i = 0; i < graph.symbols.size(); ++i) {
    sizes_[graph.symbols[i].name] = symbols[i];
    if (graph.symbols[i].name == graph.batch_symbol) batch = symbols[i];
  }
  rows_ = plan_->cut.parts > 1 ? cut(plan_->cut, batch) : std::vector<int64_t>{batch};
  for (size_t part = 0; part < rows_.size(); ++part)
    sizes_[part_symbol(static_cast<int>(part))] = rows_[part];
}

/// The arena comes first, then all other storages, each with the room of its largest value.
void OracleModel::place_slots(const std::vector<int64_t>& symbols) {
  bind_sizes(symbols);
  Binding binding;
  Binder(plan_).bind(symbols, binding);
  bytes_ = binding.arena_bytes;
  using Own = std::pair<ValueId, std::pair<int, int>>;
  std::vector<Own> owns;
  std::map<Own, int64_t> own_room;
  std::map<ValueId, int64_t> room;
  for (const Slot& slot : plan_->slots) {
    const ValueId root = storage_root(*plan_->graph, slot.value);
    owns.emplace_back(root, own_range(slot));
    own_areas_.push_back(own_area(slot, owns.back().second));
    int64_t& most = own_room[owns.back()];
    most = std::max(most, end_byte(own_areas_.back()));
    room[root] = std::max({room[root], most, end_byte(own_area(slot, {0, plan_->cut.parts}))});
  }
  std::map<Own, int64_t> own_base;
  for (const auto& [own, size] : own_room) own_base[own] = std::exchange(own_bytes_, own_bytes_ + size);
  std::map<std::pair<Root, int32_t>, std::pair<int64_t, int64_t>> places;  // first byte, and the end
  for (size_t id = 0; id < plan_->slots.size(); ++id) {
    const Slot& slot = plan_->slots[id];
    const ValueId root = storage_root(*plan_->graph, slot.value);
    own_areas_[id].base += own_base[owns[id]];
    const auto [place, added] = places.try_emplace({slot.root, slot.index}, bytes_, bytes_ + room[root]);
    if (slot.root == Root::kArena)
      place->second = {binding.buffer_offsets[static_cast<size_t>(slot.index)], binding.arena_bytes};
    else if (added)
      bytes_ += room[root];
    areas_.push_back(area(slot, place->second.first));
    shifts_.push_back(place->second.first - own_base[owns[id]]);
    tensor_of_.push_back(slot.root == Root::kKernel ? slot.index : kNoId);
    const int64_t least = slot.root == Root::kArena ? 0 : place->second.first;
    if (areas_.back().base < least || end_byte(areas_.back()) > place->second.second)
      misplaced_ = formatted("slot {} leaves its memory", id);
  }
}

void OracleModel::read_launches() {
  for (const Run& run : plan_->runs) {
    std::vector<Launch> launches;
    for (const OpLaunch& call : run.launches) launches.push_back(read_launch(call));
    launches_.push_back(std::move(launches));
  }
}

Launch OracleModel::read_launch(const OpLaunch& call) const {
  const Graph& graph = *plan_->graph;
  const Op& op = plan_->op(call.op);
  Launch launch;
  launch.reads = call.inputs;
  for (SlotId slot : call.inputs)
    for (ValueId changed : op.effects.writes)
      if (storage_root(graph, plan_->slots[slot].value) == storage_root(graph, changed))
        launch.writes.push_back(slot);
  for (size_t i = 0; i < call.outputs.size(); ++i)
    if (call.outputs[i] != kNoId && graph.values[op.outputs[i]].alias_of == kNoId)
      launch.writes.push_back(call.outputs[i]);
  const bool in_place = call.delivery == Delivery::kInPlace || !op.effects.writes.empty();
  const bool over_input = call.delivery == Delivery::kOverInput && elementwise_[call.op];
  for (SlotId slot : call.inputs) {
    const bool written = std::any_of(launch.writes.begin(), launch.writes.end(), [&](SlotId other) {
      const Slot& a = plan_->slots[slot];
      const Slot& b = plan_->slots[other];
      if (over_input) return same_storage(a, b) && a.meta == b.meta;
      return in_place && same_storage(a, b);
    });
    if (!written) launch.relied_on.push_back(slot);
  }
  return launch;
}

/// Marks an argument's bytes by their place, so that all views of it agree.
void OracleModel::fill_arguments(Memory& own) {
  for (size_t id = 0; id < plan_->slots.size(); ++id) {
    const Root root = plan_->slots[id].root;
    if (root != Root::kArgument && root != Root::kConstant) continue;
    const Mark mark = mix(static_cast<Mark>(root), static_cast<Mark>(plan_->slots[id].index));
    for (const int64_t place : own_areas_[id].bytes()) {
      own.put(place, mix(mark, static_cast<Mark>(place)));
      initial_.put(place + shifts_[id], mix(mark, static_cast<Mark>(place)));
    }
  }
}

/// A kernel that replaces ops stands where the last of them does. (Right for ops that follow each other, as
/// those do that random plans replace.)
OpId OracleModel::place_in_program(OpId op) const {
  const auto own = static_cast<OpId>(plan_->graph->ops.size());
  return op < own ? op : plan_->replacing[static_cast<size_t>(op - own)].ops.back();
}

/// Runs the graph in program order, each value in memory of its own.
void OracleModel::find_right_reads() {
  Memory own;
  own.resize(own_bytes_);
  initial_.resize(bytes_);
  fill_arguments(own);
  std::vector<std::tuple<OpId, int, RunId, size_t>> order;
  for (RunId run = 0; run < static_cast<RunId>(plan_->runs.size()); ++run)
    for (size_t i = 0; i < launches_[run].size(); ++i)
      order.emplace_back(place_in_program(plan_->runs[run].launches[i].op), plan_->runs[run].first_part, run,
                         i);
  std::sort(order.begin(), order.end());
  for (const auto& [place, part, run, i] : order) {
    const OpId op = plan_->runs[run].launches[i].op;
    Launch& launch = launches_[run][i];
    launch.right = 1;
    for (SlotId slot : launch.reads) launch.right = mix(launch.right, own.read(own_areas_[slot]));
    for (size_t w = 0; w < launch.writes.size(); ++w)
      own.write(own_areas_[launch.writes[w]], mix(mix(launch.right, static_cast<Mark>(op)), w));
  }
  for (const PlanOutput& output : plan_->outputs)
    right_outputs_.push_back(output.kind == PlanOutput::Kind::kSlot ? own.read(own_areas_[output.slot]) : 0);
}

State OracleModel::start() const {
  State state;
  state.memory = initial_;
  state.actors.resize(programs_.size());
  state.queued.assign(plan_->streams.size(), 0);
  state.events.resize(static_cast<size_t>(plan_->events));
  state.freed.assign(plan_->slots.size(), false);
  return state;
}

const Step* OracleModel::next(const State& state, size_t actor) const {
  const size_t at = state.actors[actor].next;
  return at < programs_[actor].size() ? &programs_[actor][at] : nullptr;
}

bool OracleModel::enabled(const State& state, size_t actor) const {
  const Step* step = next(state, actor);
  if (step == nullptr) return false;
  if (actor >= threads_) return state.actors[actor].next < state.queued[static_cast<size_t>(step->stream)];
  if (step->kind != Kind::kWait) return true;
  const Recorded& event = state.events[static_cast<size_t>(step->id)];
  if (!event.recorded) return false;
  const size_t queue = queue_of_[static_cast<size_t>(event.stream)];
  return queue == 0 || event.stream == step->stream || state.actors[queue].next >= event.done;
}

std::vector<size_t> OracleModel::choices(const State& state) const {
  std::vector<size_t> result;
  for (size_t actor = 0; actor < programs_.size(); ++actor)
    if (enabled(state, actor)) result.push_back(actor);
  return result;
}

std::string OracleModel::take(State& state, size_t index) const {
  Actor& actor = state.actors[index];
  const Step& step = *next(state, index);
  const auto stream = static_cast<size_t>(step.stream);
  const bool item = step.kind == Kind::kLaunch || step.kind == Kind::kFree;
  if (item && index < threads_ && queue_of_[stream] != 0) {
    ++state.queued[stream];
  } else if (step.kind == Kind::kLaunch && !launches_[step.id].empty()) {
    return take_launch(state, actor, step.id);
  } else if (step.kind == Kind::kFree) {
    if (state.freed[step.id]) return formatted("the tensor of slot {} is freed twice", step.id);
    state.freed[step.id] = true;
  } else if (step.kind == Kind::kRecord) {
    state.events[static_cast<size_t>(step.id)] = {true, step.stream, state.queued[stream]};
  }
  ++actor.next;
  return "";
}

Mark OracleModel::digest(const State& state, const std::vector<SlotId>& slots) const {
  Mark result = 1;
  for (SlotId slot : slots) result = mix(result, state.memory.read(areas_[slot]));
  return result;
}

/// One of the two halves of a launch.
std::string OracleModel::take_launch(State& state, Actor& actor, RunId run) const {
  const Launch& launch = launches_[run][actor.launch];
  const Mark busy = mix(mix(0xb05, static_cast<Mark>(run)), actor.launch);
  const auto fail = [&](const char* what) {
    return formatted("launch {} of '{}' {}", actor.launch, plan_->runs[run].name, what);
  };
  for (const std::vector<SlotId>* slots : {&launch.reads, &launch.writes})
    for (SlotId slot : *slots)
      if (tensor_of_[slot] != kNoId && state.freed[tensor_of_[slot]]) return fail("uses a freed tensor");
  if (!actor.began) {
    if (digest(state, launch.reads) != launch.right) return fail("reads wrong bytes");
    actor.relied_on = digest(state, launch.relied_on);
    for (SlotId slot : launch.writes) state.memory.write(areas_[slot], busy);
    actor.began = true;
    return "";
  }
  if (digest(state, launch.relied_on) != actor.relied_on) return fail("has its inputs changed under it");
  for (SlotId slot : launch.writes)
    if (!state.memory.holds(areas_[slot], busy)) return fail("has its outputs changed under it");
  const auto op = static_cast<Mark>(plan_->runs[run].launches[actor.launch].op);
  for (size_t w = 0; w < launch.writes.size(); ++w)
    state.memory.write(areas_[launch.writes[w]], mix(mix(launch.right, op), w));
  actor.began = false;
  if (++actor.launch < launches_[run].size()) return "";
  actor.launch = 0;
  ++actor.next;
  return "";
}

std::string OracleModel::end(const State& state) const {
  for (size_t actor = 0; actor < programs_.size(); ++actor)
    if (next(state, actor) != nullptr) return "nothing can go on";
  for (size_t i = 0; i < plan_->outputs.size(); ++i) {
    const PlanOutput& output = plan_->outputs[i];
    if (output.kind != PlanOutput::Kind::kSlot) continue;
    if (tensor_of_[output.slot] != kNoId && state.freed[tensor_of_[output.slot]])
      return formatted("output {} was freed", i);
    if (state.memory.read(areas_[output.slot]) != right_outputs_[i])
      return formatted("output {} has wrong bytes", i);
  }
  return "";
}

}  // namespace dynaflow::test
