#include <algorithm>
#include <array>
#include <string_view>

#include "dynaflow/graph.h"

namespace dynaflow {

namespace {

/// Ops whose output 0 is their argument 0's storage, though the schema calls it fresh. Nothing is launched
/// for them: the event that a collective's reader waits for takes the place of wait_tensor.
constexpr std::array<std::string_view, 2> kReturnsItsInput = {
    "aten._unsafe_view.default",
    "_c10d_functional.wait_tensor.default",
};

const ValueRef* value_argument(const Op& op, size_t index) {
  return index < op.args.size() ? std::get_if<ValueRef>(&op.args[index].data) : nullptr;
}

void make_view(Graph& graph, Op& op, ValueId source) {
  op.kind = OpKind::kView;
  op.out_target = {};
  graph.values[op.outputs[0]].alias_of = source;
}

/// The collective that `value` is the waited result of, or null.
const Op* waited_collective(const Graph& graph, ValueId value) {
  const ValueId root = storage_root(graph, value);
  const Value& source = graph.values[root];
  if (source.origin != Origin::kOp) return nullptr;
  const Op& op = graph.ops[source.op];
  return op.kind == OpKind::kCollective ? &op : nullptr;
}

/// copy(x, wait(all_reduce(x))) is what functionalisation makes of an in-place collective: its value is the
/// collective's result, provided that both have one layout in memory.
bool is_copy_back(const Graph& graph, const Op& op) {
  if (op.target != "aten.copy.default") return false;
  const ValueRef* destination = value_argument(op, 0);
  const ValueRef* source = value_argument(op, 1);
  if (destination == nullptr || source == nullptr) return false;
  const Op* collective = waited_collective(graph, source->id);
  if (collective == nullptr) return false;
  const ValueRef* reduced = value_argument(*collective, 0);
  if (reduced == nullptr || storage_root(graph, reduced->id) != storage_root(graph, destination->id))
    return false;
  const SharedMeta& from = graph.values[source->id].meta;
  return from == graph.values[op.outputs[0]].meta;
}

}  // namespace

Graph apply_corrections(Graph graph) {
  for (Op& op : graph.ops) {
    if (op.kind == OpKind::kView || op.outputs.empty()) continue;
    const bool listed =
        std::find(kReturnsItsInput.begin(), kReturnsItsInput.end(), op.target) != kReturnsItsInput.end();
    if (listed && value_argument(op, 0) != nullptr) make_view(graph, op, value_argument(op, 0)->id);
    if (is_copy_back(graph, op)) make_view(graph, op, value_argument(op, 1)->id);
  }
  return graph;
}

}  // namespace dynaflow
