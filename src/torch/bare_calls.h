#pragma once
#include <ATen/core/stack.h>

#include <vector>

#include "torch/call.h"

namespace dynaflow {

/// A call with the arguments that it had in a step.
struct BareCall {
  Call call;
  torch::jit::Stack arguments;
};

/// The kernel calls of one step, kept to be made again with nothing around them: what no executor can
/// undercut. Their tensors share the step's memory. Not thread-safe.
class BareCalls {
 public:
  /// Keeps a call about to be made.
  void add(const Call& call, const torch::jit::Stack& arguments);
  /// Makes all of them in order. Results are dropped.
  void run();

 private:
  std::vector<BareCall> calls_;
  torch::jit::Stack stack_;
};

}  // namespace dynaflow
