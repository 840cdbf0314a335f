#include "dynaflow/executor.h"

#include "executor/frame.h"
#include "executor/program.h"

namespace dynaflow {

struct Executor::Impl {
  PlanPtr plan;
  std::shared_ptr<Binder> binder;
  std::shared_ptr<KernelProvider> kernels;
  std::shared_ptr<Device> device;
  Programs programs;
  std::mutex mutex;                          // of idle
  std::vector<std::unique_ptr<Frame>> idle;  // last: frames go before what they were made from
};

Executor::Executor(PlanPtr plan, std::shared_ptr<Binder> binder, std::shared_ptr<KernelProvider> kernels,
                   std::shared_ptr<Device> device)
    : impl_(std::make_unique<Impl>()) {
  check(*plan);
  impl_->programs = compile(*plan);
  impl_->plan = std::move(plan);
  impl_->binder = std::move(binder);
  impl_->kernels = std::move(kernels);
  impl_->device = std::move(device);
}

Executor::~Executor() = default;

Executor::Lease Executor::acquire() {
  {
    const std::lock_guard lock(impl_->mutex);
    if (!impl_->idle.empty()) {
      std::unique_ptr<Frame> frame = std::move(impl_->idle.back());
      impl_->idle.pop_back();
      return {this, std::move(frame)};
    }
  }
  return {this, std::make_unique<RunFrame>(*impl_->plan, impl_->programs, *impl_->kernels, *impl_->device)};
}

void Executor::run(Frame& frame, const std::vector<int64_t>& graph_symbols, const RunOptions& options) {
  static_cast<RunFrame&>(frame).run(*impl_->binder, graph_symbols, options);
}

const Plan& Executor::plan() const { return *impl_->plan; }

Executor::Lease::Lease(Executor* owner, std::unique_ptr<Frame> frame)
    : owner_(owner), frame_(std::move(frame)) {}

Executor::Lease::Lease(Lease&&) noexcept = default;

Executor::Lease::~Lease() {
  if (!frame_) return;
  const std::lock_guard lock(owner_->impl_->mutex);
  owner_->impl_->idle.push_back(std::move(frame_));
}

}  // namespace dynaflow
