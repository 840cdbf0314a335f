#include "partition/dependencies.h"

#include <map>

namespace dynaflow {

namespace {

/// Orders ops by what they read, write and share, in program order.
class DependencyTracker {
 public:
  explicit DependencyTracker(const Graph& graph) : graph_(graph), is_written_(graph.values.size(), false) {
    for (const Op& op : graph.ops)
      for (ValueId written : op.effects.writes) is_written_[storage_root(graph, written)] = true;
  }

  /// The ops that must come before `id`; call in program order.
  std::vector<OpId> before(OpId id) {
    const Op& op = graph_.ops[id];
    const std::vector<ValueId> inputs = op_inputs(op);
    std::vector<OpId> result;
    result.reserve(inputs.size());
    const auto add = [&](OpId other) {
      if (other != kNoId && other != id) result.push_back(other);
    };
    for (ValueId input : inputs) {
      const ValueId root = storage_root(graph_, input);
      add(graph_.values[root].op);
      if (!is_written_[root]) continue;
      add(last_writer(root));
      readers_[root].push_back(id);
    }
    for (ValueId written : op.effects.writes) {
      const ValueId root = storage_root(graph_, written);
      for (OpId reader : readers_[root]) add(reader);
      add(last_writer(root));
      readers_[root].clear();
      writers_[root] = id;
    }
    // Random draws and reads of the host's context keep their order among themselves.
    if (op.effects.random || op.effects.reads_context) {
      add(last_ordered_);
      last_ordered_ = id;
    }
    return result;
  }

 private:
  OpId last_writer(ValueId root) const {
    const auto found = writers_.find(root);
    return found == writers_.end() ? kNoId : found->second;
  }

  const Graph& graph_;
  std::vector<bool> is_written_;  // by storage root
  std::map<ValueId, std::vector<OpId>> readers_;
  std::map<ValueId, OpId> writers_;
  OpId last_ordered_ = kNoId;
};

}  // namespace

std::vector<std::vector<OpId>> dependencies(const Graph& graph) {
  DependencyTracker tracker(graph);
  std::vector<std::vector<OpId>> result(graph.ops.size());
  for (OpId id = 0; id < static_cast<OpId>(graph.ops.size()); ++id)
    if (graph.ops[id].kind != OpKind::kView) result[id] = tracker.before(id);
  return result;
}

}  // namespace dynaflow
