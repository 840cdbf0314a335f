#include "plan/overwrite.h"

#include <algorithm>

namespace dynaflow {

namespace {

class OverwriteFinder {
 public:
  OverwriteFinder(const Plan& plan, const OpInputs& inputs, const std::vector<Layout>& layouts)
      : graph_(*plan.graph),
        inputs_(inputs),
        layouts_(layouts),
        readers_(graph_.values.size(), 0),
        is_output_(graph_.values.size(), false),
        is_replaced_(graph_.ops.size(), false),
        is_elementwise_(elementwise_ops(graph_)) {
    for (ValueId id = 0; id < static_cast<ValueId>(graph_.values.size()); ++id)
      own_root_.push_back(storage_root(graph_, id));
    found_.root = own_root_;
    found_.op.resize(graph_.ops.size(), false);
    for (OpId id = 0; id < static_cast<OpId>(graph_.ops.size()); ++id)
      if (graph_.ops[id].kind != OpKind::kView)
        for (ValueId input : inputs_[id]) ++readers_[own_root_[input]];
    for (const Arg& output : graph_.outputs)
      if (const auto* ref = std::get_if<ValueRef>(&output.data)) is_output_[own_root_[ref->id]] = true;
    for (const ReplacingOp& replacing : plan.replacing)
      for (OpId op : replacing.ops) is_replaced_[op] = true;
  }

  Overwrites run() && {
    for (OpId id = 0; id < static_cast<OpId>(graph_.ops.size()); ++id) {
      const Op& op = graph_.ops[id];
      if (op.outputs.size() != 1 || !may_overwrite(id)) continue;
      for (ValueId input : inputs_[id]) {
        if (!dies_in(op, input)) continue;
        found_.root[op.outputs[0]] = found_.root[own_root_[input]];
        found_.op[id] = true;
        break;
      }
    }
    for (ValueId id = 0; id < static_cast<ValueId>(found_.root.size()); ++id)
      found_.root[id] = found_.root[own_root_[id]];
    return std::move(found_);
  }

 private:
  static bool is_all_reduce(const Op& op) {
    return op.kind == OpKind::kCollective && short_target(op.target) == "all_reduce";
  }

  bool may_overwrite(OpId id) const {
    const Op& op = graph_.ops[id];
    if (is_all_reduce(op)) return inputs_[id].size() == 1;
    return is_elementwise_[id] && !op.out_target.empty() && !is_replaced_[id] && !op.effects.any() &&
           graph_.values[op.outputs[0]].alias_of == kNoId;
  }

  /// Whether `op` alone reads the whole storage of `input`, and its result lies as `input` does.
  bool dies_in(const Op& op, ValueId input) const {
    const ValueId source = own_root_[input];
    const Value& root = graph_.values[source];
    if (root.origin != Origin::kOp || is_output_[source] || readers_[source] != 1) return false;
    const OpId maker = graph_.values[found_.root[source]].op;
    const bool told = !is_replaced_[maker] && writes_where_told(graph_.ops[maker]);
    if (!is_all_reduce(op) && !told) return false;
    const SharedMeta& from = graph_.values[input].meta;
    const SharedMeta& to = graph_.values[op.outputs[0]].meta;
    return from == to && layouts_[input] == layouts_[op.outputs[0]] && root.meta->dtype == from->dtype &&
           from->strides == contiguous_strides(from->shape) &&
           (root.meta == from || storage_elements(root.meta) == storage_elements(from));
  }

  const Graph& graph_;
  const OpInputs& inputs_;
  const std::vector<Layout>& layouts_;
  std::vector<ValueId> own_root_;  // by ValueId: storage_root()
  std::vector<int> readers_;       // by root: uses as an argument of a launched op
  std::vector<bool> is_output_;
  std::vector<bool> is_replaced_;
  std::vector<bool> is_elementwise_;
  Overwrites found_;
};

}  // namespace

bool writes_where_told(const Op& op) { return !op.out_target.empty() || op.kind == OpKind::kCollective; }

Overwrites find_overwrites(const Plan& plan, const OpInputs& inputs, const std::vector<Layout>& layouts) {
  return OverwriteFinder(plan, inputs, layouts).run();
}

}  // namespace dynaflow
