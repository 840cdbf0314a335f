#include "torch/runtime.h"

namespace dynaflow {

Turnstile::Turn::Turn(Turnstile& turnstile) : turnstile_(turnstile) {
  std::unique_lock lock(turnstile_.mutex_);
  if (turnstile_.owner_ == std::this_thread::get_id()) {
    throw ExecutionError(
        "an engine with collectives, or readers of the host's state, was called from within a run of "
        "another");
  }
  const uint64_t ticket = turnstile_.next_ticket_++;
  turnstile_.changed_.wait(lock, [&] { return turnstile_.serving_ == ticket; });
  turnstile_.owner_ = std::this_thread::get_id();
}

Turnstile::Turn::~Turn() {
  {
    std::scoped_lock lock(turnstile_.mutex_);
    turnstile_.owner_ = {};
    ++turnstile_.serving_;
  }
  turnstile_.changed_.notify_all();
}

Gate::Pass::Pass(Gate& gate) : gate_(gate) {
  gate_.inside_.fetch_add(1);
  const std::thread::id closer = gate_.closed_by_.load();
  if (closer == std::thread::id() || closer == std::this_thread::get_id()) return;
  gate_.inside_.fetch_sub(1);
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

bool Gate::close(std::chrono::milliseconds limit) {
  closed_by_.store(std::this_thread::get_id());
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (inside_.load() != 0) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

void Runtime::add_group(std::string name, const std::string& queue_name, bool fifo) {
  std::scoped_lock lock(mutex_);
  std::shared_ptr<Group>& group = groups_[name];
  if (group && group->serves(queue_name, fifo)) return;
  group = nullptr;
  try {
    group = std::make_shared<Group>(name, queue_name, fifo);
  } catch (...) {
    groups_.erase(name);
    throw;
  }
}

void Runtime::add_kernel(const std::string& target, const std::string& path) {
  std::scoped_lock lock(mutex_);
  std::shared_ptr<const CompiledKernel>& kernel = kernels_[target];
  if (kernel) return;
  try {
    kernel = std::make_shared<const CompiledKernel>(path);
  } catch (...) {
    kernels_.erase(target);
    throw;
  }
}

CompiledKernels Runtime::kernels() const {
  std::scoped_lock lock(mutex_);
  return kernels_;
}

void Runtime::set_context_op(std::string name) {
  std::scoped_lock lock(mutex_);
  context_op_ = std::move(name);
}

std::string Runtime::context_op() const {
  std::scoped_lock lock(mutex_);
  return context_op_;
}

std::string Runtime::broken() const {
  for (const auto& [name, group] : groups()) {
    const std::string reason = group->broken();
    if (!reason.empty()) return formatted("group '{}' is broken: {}", name, reason);
  }
  return {};
}

Groups Runtime::groups() const {
  std::scoped_lock lock(mutex_);
  return groups_;
}

}  // namespace dynaflow
