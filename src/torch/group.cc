#include "torch/group.h"

#include <torch/csrc/distributed/c10d/GroupRegistry.hpp>
#include <torch/csrc/distributed/c10d/Types.hpp>

#include <algorithm>
#include <array>

#include "torch/errors.h"

namespace dynaflow {

using WorkPtr = c10::intrusive_ptr<c10d::Work>;

struct Group::Queue {
  explicit Queue(const c10::intrusive_ptr<c10d::ProcessGroup>& group) : process_group(group) {}
  // Not owned: destroy_process_group() must be able to end it.
  c10::weak_intrusive_ptr<c10d::ProcessGroup> process_group;
  std::mutex mutex;  // held while a collective starts
  WorkPtr last;      // of a group that is not first in, first out
};

namespace {

constexpr std::array kKinds = {
    std::pair{"all_reduce", CollectiveKind::kAllReduce},
    std::pair{"all_gather_into_tensor", CollectiveKind::kAllGather},
    std::pair{"reduce_scatter_tensor", CollectiveKind::kReduceScatter},
    std::pair{"all_to_all_single", CollectiveKind::kAllToAll},
    std::pair{"broadcast", CollectiveKind::kBroadcast},
};

/// Names as in torch's own functional collectives.
c10d::ReduceOp reduce_op(const std::string& name) {
  constexpr std::array kNames = {
      std::pair{"sum", c10d::ReduceOp::SUM},         std::pair{"avg", c10d::ReduceOp::AVG},
      std::pair{"product", c10d::ReduceOp::PRODUCT}, std::pair{"min", c10d::ReduceOp::MIN},
      std::pair{"max", c10d::ReduceOp::MAX},         std::pair{"band", c10d::ReduceOp::BAND},
      std::pair{"bor", c10d::ReduceOp::BOR},         std::pair{"bxor", c10d::ReduceOp::BXOR},
  };
  const auto* found =
      std::ranges::find(kNames, name, [](const auto& entry) { return std::string_view(entry.first); });
  if (found == kNames.end()) throw std::invalid_argument(formatted("unknown reduction '{}'", name));
  return found->second;
}

/// A collective under way. Holds its tensors, so that no storage goes while the network still uses it.
class WorkCompletion final : public Completion {
 public:
  WorkCompletion(Group& group, WorkPtr work, std::vector<at::Tensor> tensors, std::function<void()> on_end)
      : group_(group), work_(std::move(work)), tensors_(std::move(tensors)), on_end_(std::move(on_end)) {}
  bool done() const override { return work_->isCompleted(); }
  void wait() override {
    try {
      work_->wait();
    } catch (const std::exception& error) {
      const std::string reason = error_text(error);
      group_.mark_broken(reason);
      throw std::runtime_error(formatted("collective on group '{}' failed: {}", group_.name(), reason));
    }
    std::call_once(ended_, [this] {
      if (on_end_) on_end_();
    });
  }

 private:
  Group& group_;
  WorkPtr work_;
  std::vector<at::Tensor> tensors_;
  std::function<void()> on_end_;  // where the work itself cannot tell
  std::once_flag ended_;
};

/// Calls `on_end` when `work` ends; false when the process group's work offers no such thing.
bool notify(c10d::Work& work, const std::function<void()>& on_end) {
  try {
    work.getFuture()->addCallback([on_end](c10::ivalue::Future&) { on_end(); });
    return true;
  } catch (const c10::Error&) {
    return false;
  }
}

void move_into(at::Tensor& output, const at::Tensor& input) {
  if (!output.is_same(input) && output.data_ptr() != input.data_ptr()) output.copy_(input);
}

// These three were renamed in 2.13, which warns of the names that 2.11 knows.
WorkPtr all_gather(auto& process_group, at::Tensor& output, at::Tensor& input) {
  if constexpr (requires { process_group.all_gather_single(output, input); }) {
    return process_group.all_gather_single(output, input);
  } else {
    return process_group._allgather_base(output, input);
  }
}

WorkPtr reduce_scatter(auto& process_group, at::Tensor& output, at::Tensor& input,
                       const c10d::ReduceScatterOptions& options) {
  if constexpr (requires { process_group.reduce_scatter_single(output, input, options); }) {
    return process_group.reduce_scatter_single(output, input, options);
  } else {
    return process_group._reduce_scatter_base(output, input, options);
  }
}

WorkPtr all_to_all(auto& process_group, at::Tensor& output, at::Tensor& input,
                   std::vector<int64_t> output_splits, std::vector<int64_t> input_splits) {
  if constexpr (requires { process_group.all_to_all_single(output, input, output_splits, input_splits); }) {
    return process_group.all_to_all_single(output, input, output_splits, input_splits);
  } else {
    return process_group.alltoall_base(output, input, output_splits, input_splits);
  }
}

WorkPtr begin(c10d::ProcessGroup& process_group, CollectiveKind kind, const torch::jit::Stack& arguments,
              at::Tensor& input, at::Tensor& output) {
  switch (kind) {
    case CollectiveKind::kAllReduce: {
      c10d::AllreduceOptions options;
      options.reduceOp = reduce_op(arguments[1].toStringRef());
      move_into(output, input);
      std::vector<at::Tensor> tensors{output};
      return process_group.allreduce(tensors, options);
    }
    case CollectiveKind::kAllGather:
      return all_gather(process_group, output, input);
    case CollectiveKind::kReduceScatter: {
      c10d::ReduceScatterOptions options;
      options.reduceOp = reduce_op(arguments[1].toStringRef());
      return reduce_scatter(process_group, output, input, options);
    }
    case CollectiveKind::kAllToAll:
      return all_to_all(process_group, output, input, arguments[1].toIntVector(), arguments[2].toIntVector());
    case CollectiveKind::kBroadcast: {
      c10d::BroadcastOptions options;
      options.rootRank = arguments[1].toInt();
      move_into(output, input);
      std::vector<at::Tensor> tensors{output};
      return process_group.broadcast(tensors, options);
    }
  }
  throw InternalError("unknown kind of collective");
}

}  // namespace

CollectiveKind collective_kind(const Op& op) {
  const std::string_view name = short_target(op.target);
  const auto* found =
      std::ranges::find(kKinds, name, [](const auto& entry) { return std::string_view(entry.first); });
  if (found == kKinds.end()) {
    throw PlanError(formatted("op '{}': the torch adapter has no collective {}", op.name, op.target));
  }
  return found->second;
}

namespace {

c10::intrusive_ptr<c10d::ProcessGroup> resolve(const std::string& queue_name) {
  try {
    return c10d::resolve_process_group(queue_name);
  } catch (const std::exception& error) {
    throw PlanError(formatted("there is no process group '{}' ({})", queue_name, error_text(error)));
  }
}

}  // namespace

Group::Group(std::string name, const std::string& queue_name, bool fifo)
    : name_(std::move(name)),
      queue_name_(queue_name),
      fifo_(fifo),
      queue_(std::make_unique<Queue>(resolve(queue_name))) {}

Group::~Group() = default;

bool Group::destroyed() const {
  try {
    return c10d::resolve_process_group(queue_name_) == nullptr;
  } catch (const std::exception&) {
    return true;
  }
}

bool Group::serves(const std::string& queue_name, bool fifo) const {
  return fifo == fifo_ && queue_->process_group.lock() == resolve(queue_name);
}

std::shared_ptr<Completion> Group::start(CollectiveKind kind, const torch::jit::Stack& arguments,
                                         const at::Tensor& output, std::function<void()> on_end) {
  const auto process_group = queue_->process_group.lock();
  if (!process_group) throw std::runtime_error(formatted("the process group of '{}' was destroyed", name_));
  at::Tensor input = arguments[0].toTensor().contiguous();
  at::Tensor result = output;
  DF_CHECK(result.is_contiguous(), "a collective writes contiguous bytes");
  std::scoped_lock lock(queue_->mutex);
  try {
    if (queue_->last) queue_->last->wait();
    queue_->last.reset();
    WorkPtr work = begin(*process_group, kind, arguments, input, result);
    if (!fifo_) queue_->last = work;
    if (on_end && notify(*work, on_end)) on_end = nullptr;
    return std::make_shared<WorkCompletion>(*this, std::move(work), std::vector<at::Tensor>{input, result},
                                            std::move(on_end));
  } catch (const std::exception& error) {
    mark_broken(error_text(error));
    throw;
  }
}

void Group::mark_broken(const std::string& reason) {
  std::scoped_lock lock(mutex_);
  if (broken_.empty()) broken_ = reason;
}

std::string Group::broken() const {
  std::scoped_lock lock(mutex_);
  return broken_;
}

}  // namespace dynaflow
