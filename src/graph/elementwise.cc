#include <algorithm>
#include <unordered_set>

#include "dynaflow/graph.h"
#include "graph/split_rules.h"

namespace dynaflow {

std::vector<bool> elementwise_ops(const Graph& graph) {
  const std::vector<std::string_view> targets = split::pointwise_targets();
  const std::unordered_set<std::string_view> known(targets.begin(), targets.end());
  std::vector<bool> result;
  for (const Op& op : graph.ops) result.push_back(known.count(op.target) > 0);
  return result;
}

std::vector<std::string> elementwise_targets() {
  const std::vector<std::string_view> targets = split::pointwise_targets();
  std::vector<std::string> result(targets.begin(), targets.end());
  std::sort(result.begin(), result.end());
  return result;
}

}  // namespace dynaflow
