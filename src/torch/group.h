#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/core/stack.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "dynaflow/device.h"
#include "dynaflow/graph.h"

namespace dynaflow {

enum class CollectiveKind : uint8_t { kAllReduce, kAllGather, kReduceScatter, kAllToAll, kBroadcast };
/// Throws PlanError naming the op when its target is a collective that the adapter does not run.
CollectiveKind collective_kind(const Op& op);

/// A communicator: the process group that the collectives of one graph group go to.
class Group {
 public:
  /// `queue_name`: the process group's registered name. Throws PlanError when there is none. Without `fifo`
  /// the process group may finish later work first, so at most one collective is in flight.
  Group(std::string name, const std::string& queue_name, bool fifo);
  ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  /// Starts a collective. `arguments` are those of its functional op; `output` receives the result and may
  /// share the input's bytes where the collective can work in place. `on_end` runs when the work ends, on any
  /// thread.
  std::shared_ptr<Completion> start(CollectiveKind kind, const torch::jit::Stack& arguments,
                                    const at::Tensor& output, std::function<void()> on_end);
  /// The first failure wins: ranks no longer agree on what comes next, so nothing else may be issued.
  void mark_broken(const std::string& reason);
  /// Why the group is broken, or empty.
  std::string broken() const;
  const std::string& name() const { return name_; }
  /// Whether the process group is registered no longer, as after destroy_process_group().
  bool destroyed() const;
  /// Whether this is the communicator that Group(name, queue_name, fifo) would make anew.
  bool serves(const std::string& queue_name, bool fifo) const;

 private:
  struct Queue;
  const std::string name_;
  const std::string queue_name_;
  const bool fifo_;
  std::unique_ptr<Queue> queue_;
  mutable std::mutex mutex_;
  std::string broken_;
};

}  // namespace dynaflow
