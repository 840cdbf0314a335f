#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "dynaflow/device.h"
#include "dynaflow/plan.h"

namespace dynaflow {

/// The tensors of one run in flight, owned by the provider of the kernels. The executor passes run and slot
/// numbers and never sees a tensor. begin/end bracket a run; launch is called by the stream's thread.
class KernelFrame {
 public:
  virtual ~KernelFrame() = default;
  /// Sizes are bound; `changed` says whether they differ from this frame's last run. Arguments were set
  /// through the provider's own interface. Makes the arena at least binding.arena_bytes long.
  virtual void begin(const Binding& binding, bool changed) = 0;
  /// Runs the kernels of plan run `run`. Null when they have ended on return; else what they left running.
  virtual std::shared_ptr<Completion> launch(RunId run) = 0;
  /// Drops the kernel-made tensor in `slot`.
  virtual void free(SlotId slot) = 0;
  /// The run is over, successfully or not: arguments and kernel-made tensors are dropped. Also called when
  /// begin was not reached, because the sizes are illegal, or threw.
  virtual void end() = 0;
  /// Fills the arena with NaN bytes: tests call it between runs so that a stale read shows.
  virtual void poison() = 0;
  /// Runs `body` with the caller's thread-local state, on a stream's own thread.
  virtual void with_caller_state(const std::function<void()>& body) { body(); }
};

/// Prepares the kernels of a plan once; frames are made from it as runs overlap.
class KernelProvider {
 public:
  virtual ~KernelProvider() = default;
  virtual std::unique_ptr<KernelFrame> make_frame() = 0;
};

}  // namespace dynaflow
