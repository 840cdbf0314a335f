#include <algorithm>
#include <unordered_set>

#include "dynaflow/graph.h"
#include "graph/split_rules.h"

namespace dynaflow {

namespace {

/// Reductions along dimensions, and copies: no element stays where it is, but loops they are.
constexpr std::string_view kLoops[] = {
    "aten.mean.dim",         "aten.sum.dim_IntList",        "aten.amax.default",
    "aten.amin.default",     "aten.var.correction",         "aten.var_mean.correction",
    "aten._softmax.default", "aten._to_copy.default",       "aten.clone.default",
    "aten.cat.default",      "aten.pow.Tensor_Scalar",      "aten.native_layer_norm.default",
    "aten.rms_norm.default", "aten._fused_rms_norm.default"};

}  // namespace

std::vector<bool> elementwise_ops(const Graph& graph) {
  const std::vector<std::string_view> targets = split::pointwise_targets();
  const std::unordered_set<std::string_view> known(targets.begin(), targets.end());
  std::vector<bool> result;
  for (const Op& op : graph.ops) result.push_back(known.count(op.target) > 0);
  return result;
}

std::vector<bool> fusible_ops(const Graph& graph) {
  std::vector<bool> result = elementwise_ops(graph);
  for (size_t id = 0; id < graph.ops.size(); ++id) {
    const Op& op = graph.ops[id];
    const bool loops =
        result[id] || std::find(std::begin(kLoops), std::end(kLoops), op.target) != std::end(kLoops);
    result[id] = loops && op.kind == OpKind::kCompute && !op.effects.any();
  }
  return result;
}

std::vector<std::string> elementwise_targets() {
  const std::vector<std::string_view> targets = split::pointwise_targets();
  std::vector<std::string> result(targets.begin(), targets.end());
  std::sort(result.begin(), result.end());
  return result;
}

}  // namespace dynaflow
