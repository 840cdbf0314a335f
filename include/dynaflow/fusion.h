// layer: plan
#pragma once
#include <set>
#include <string>
#include <string_view>

#include "dynaflow/plan.h"

namespace dynaflow {

/// Whether a plan leaves chains of ops to compiled kernels, and which ones it does not.
struct Fusion {
  bool chains = false;
  std::set<std::string, std::less<>> refused;  // targets of kernels that cannot be had
};

/// ReplacingOp::replacement of an op that stands for a chain.
inline constexpr std::string_view kCompiledChain = "compiled";
/// The namespace of such ops' targets: "dynaflow_compiled.k0123456789abcdef.default".
inline constexpr std::string_view kCompiledNamespace = "dynaflow_compiled";

/// Whether the op of a plan stands for a chain: a user's replacement may have any name.
inline bool is_compiled(const Op& op) {
  const std::string_view target = op.target;
  return target.starts_with(kCompiledNamespace) && target.substr(kCompiledNamespace.size()).starts_with('.');
}

/// The most ops of one chain: compilers take longer than linear time.
inline constexpr size_t kLongestChain = 64;

/// What the kernel of a chain computes, as a graph of its own: the same for chains that are alike.
Graph kernel_graph(const Graph& graph, const ReplacingOp& chain);
/// "k" and 32 digits that stand for the text of its kernel_graph().
std::string kernel_name(const Graph& graph, const ReplacingOp& chain);

/// As lower(schedule), with chains of ops in place of single ones as `fusion` says.
PlanPtr lower(const Schedule& schedule, const Fusion& fusion);

}  // namespace dynaflow
