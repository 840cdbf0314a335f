#pragma once
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <vector>

namespace dynaflow {

/// A dispatcher call with the arguments that it had in a step.
struct BareCall {
  c10::OperatorHandle handle;
  torch::jit::Stack arguments;
};

/// The kernel calls of one step, kept to be made again with nothing around them: what no executor can
/// undercut. Their tensors share the step's memory. Not thread-safe.
class BareCalls {
 public:
  /// Keeps a call about to be made.
  void add(const c10::OperatorHandle& handle, const torch::jit::Stack& arguments);
  /// Makes all of them in order. Results are dropped.
  void run();

 private:
  std::vector<BareCall> calls_;
  torch::jit::Stack stack_;
};

}  // namespace dynaflow
