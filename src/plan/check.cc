#include <algorithm>
#include <set>

#include "dynaflow/plan.h"

namespace dynaflow {

namespace {

/// How many values op_inputs() would find.
size_t count_inputs(const ArgList& args) {
  size_t count = 0;
  for (const Arg& arg : args) {
    if (std::holds_alternative<ValueRef>(arg.data)) ++count;
    if (const auto* list = std::get_if<ArgList>(&arg.data)) count += count_inputs(*list);
  }
  return count;
}

class PlanChecker {
 public:
  explicit PlanChecker(const Plan& plan) : plan_(plan) {}

  void check() {
    if (plan_.cut.parts > 1 && plan_.graph->find_symbol(plan_.graph->batch_symbol) == nullptr)
      fail("the plan has parts but its graph has no batch symbol");
    for (const Guard& guard : plan_.guards)
      for (const SizeExpr* side : {&guard.left, &guard.right}) check_symbols(*side);
    for (const Buffer& buffer : plan_.buffers)
      for (BufferId under : buffer.above) index(under, plan_.buffers.size(), "buffer");
    for (const ReplacingOp& replacing : plan_.replacing) check_replacing(replacing);
    for (size_t id = 0; id < plan_.slots.size(); ++id) check_slot(id);
    for (const Run& run : plan_.runs) check_run(run);
    for (const PlanOutput& output : plan_.outputs)
      if (output.kind == PlanOutput::Kind::kSlot) index(output.slot, plan_.slots.size(), "output slot");
    check_code();
  }

 private:
  [[noreturn]] static void fail(const std::string& what) { throw PlanError(what); }
  static void index(int64_t id, size_t count, const char* what) {
    if (id < 0 || id >= static_cast<int64_t>(count)) fail(formatted("{} {} is not in the plan", what, id));
  }

  void check_symbols(const SizeExpr& size) const {
    for (const std::string& symbol : size.symbols())
      if (plan_.graph->find_symbol(symbol) == nullptr)
        fail(formatted("a guard is about '{}', which is no symbol of the graph", symbol));
  }

  void check_slot(size_t id) const {
    const Slot& slot = plan_.slots[id];
    index(slot.value, plan_.graph->values.size(), "value");
    if (slot.meta->shape.size() != slot.meta->strides.size())
      fail(formatted("slot {} has {} sizes and {} strides", id, slot.meta->shape.size(),
                     slot.meta->strides.size()));
    if (slot.first_part < 0 || slot.first_part >= slot.last_part || slot.last_part > plan_.cut.parts)
      fail(formatted("slot {} covers parts [{}, {})", id, slot.first_part, slot.last_part));
    if (slot.root == Root::kArena) index(slot.index, plan_.buffers.size(), "buffer");
    if (slot.root == Root::kOutput) index(slot.index, plan_.output_storage.size(), "output storage");
    if (slot.root == Root::kKernel) index(slot.index, plan_.slots.size(), "source slot");
    if (slot.root == Root::kArgument || slot.root == Root::kConstant) check_argument(id);
    if (slot.index < 0) fail(formatted("slot {} has no root", id));
  }

  void check_argument(size_t id) const {
    const Slot& slot = plan_.slots[id];
    const Value& value = plan_.graph->values[storage_root(*plan_.graph, slot.value)];
    const Root own = value.origin == Origin::kConstant ? Root::kConstant : Root::kArgument;
    if (value.origin == Origin::kOp || slot.root != own || slot.index != value.index)
      fail(formatted("slot {} does not lie in the argument of its value %{}", id, value.name));
  }

  /// It reads what the ops that it replaces read from outside, and makes values of theirs; they do no more.
  void check_replacing(const ReplacingOp& replacing) const {
    const Graph& graph = *plan_.graph;
    const auto inside = [&](ValueId value) {
      const Value& root = graph.values[storage_root(graph, value)];
      return root.origin == Origin::kOp &&
             std::find(replacing.ops.begin(), replacing.ops.end(), root.op) != replacing.ops.end();
    };
    std::set<ValueId> read;
    for (OpId id : replacing.ops) {
      const Op& op = graph.ops[id];
      if (op.kind == OpKind::kView || op.kind == OpKind::kCollective || op.effects.any())
        fail(formatted("'{}' replaces '{}', which is a view, a collective or has effects", replacing.op.name,
                       op.name));
      for (ValueId input : op_inputs(op)) read.insert(input);
    }
    for (ValueId input : op_inputs(replacing.op))
      if (inside(input) || read.count(input) == 0)
        fail(formatted("'{}' reads %{}, which the ops that it replaces do not read from outside",
                       replacing.op.name, graph.values[input].name));
    for (ValueId output : replacing.op.outputs)
      if (!inside(output) || storage_root(graph, output) != output)
        fail(formatted("'{}' makes %{}, which the ops that it replaces do not make", replacing.op.name,
                       graph.values[output].name));
  }

  void check_run(const Run& run) const {
    index(run.stream, plan_.streams.size(), "stream");
    if (run.first_part < 0 || run.first_part >= run.last_part || run.last_part > plan_.cut.parts)
      fail(formatted("run '{}' covers parts [{}, {})", run.name, run.first_part, run.last_part));
    for (const OpLaunch& launch : run.launches) {
      index(launch.op, plan_.graph->ops.size() + plan_.replacing.size(), "op");
      const Op& op = plan_.op(launch.op);
      for (SlotId slot : launch.inputs) index(slot, plan_.slots.size(), "slot");
      if (launch.inputs.size() != count_inputs(op.args) || launch.outputs.size() != op.outputs.size())
        fail(formatted("a launch of '{}' has {} inputs and {} outputs", op.name, launch.inputs.size(),
                       launch.outputs.size()));
      for (SlotId slot : launch.outputs)
        if (slot != kNoId) index(slot, plan_.slots.size(), "slot");
    }
  }

  void check_code() const {
    size_t instructions = 0;
    for (const Stream& stream : plan_.streams) instructions += stream.code.size();
    if (plan_.events < 0 || static_cast<size_t>(plan_.events) > instructions)
      fail(formatted("the plan has {} events and {} instructions", plan_.events, instructions));
    std::vector<int> launched(plan_.runs.size(), 0);
    std::set<EventId> recorded;
    for (size_t stream = 0; stream < plan_.streams.size(); ++stream) {
      RunId last = kNoId;
      for (const Instruction& instruction : plan_.streams[stream].code) {
        if (instruction.kind == Instruction::Kind::kLaunch) {
          index(instruction.id, plan_.runs.size(), "run");
          if (plan_.runs[instruction.id].stream != static_cast<StreamId>(stream) || instruction.id <= last)
            fail(formatted("run {} is out of order or on the wrong stream", instruction.id));
          last = instruction.id;
          ++launched[instruction.id];
        } else if (instruction.kind == Instruction::Kind::kFree) {
          index(instruction.id, plan_.slots.size(), "slot");
        } else {
          index(instruction.id, static_cast<size_t>(plan_.events), "event");
          if (instruction.kind == Instruction::Kind::kRecord && !recorded.insert(instruction.id).second)
            fail(formatted("event {} is recorded twice", instruction.id));
        }
      }
    }
    for (size_t run = 0; run < launched.size(); ++run)
      if (launched[run] != 1)
        fail(formatted("run '{}' is launched {} times", plan_.runs[run].name, launched[run]));
    check_waits(recorded);
  }

  /// Every wait has a record, and the record is issued first: with both, no run can wait for itself.
  void check_waits(const std::set<EventId>& recorded) const {
    std::vector<RunId> made_by(static_cast<size_t>(plan_.events), kNoId);
    for (const Stream& stream : plan_.streams) {
      RunId last = kNoId;
      for (const Instruction& instruction : stream.code) {
        if (instruction.kind == Instruction::Kind::kLaunch) last = instruction.id;
        if (instruction.kind == Instruction::Kind::kRecord) made_by[instruction.id] = last;
      }
    }
    for (const Stream& stream : plan_.streams) {
      std::vector<EventId> pending;
      for (const Instruction& instruction : stream.code) {
        if (instruction.kind == Instruction::Kind::kWait) pending.push_back(instruction.id);
        if (instruction.kind != Instruction::Kind::kLaunch) continue;
        for (EventId event : pending) {
          if (recorded.count(event) == 0) fail(formatted("event {} is waited for but never recorded", event));
          if (made_by[event] >= instruction.id)
            fail(formatted("run '{}' waits for event {}, which is recorded later in issue order",
                           plan_.runs[instruction.id].name, event));
        }
        pending.clear();
      }
    }
  }

  const Plan& plan_;
};

}  // namespace

void check(const Plan& plan) { PlanChecker(plan).check(); }

}  // namespace dynaflow
