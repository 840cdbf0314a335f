#include "torch/memory_log.h"

#include <c10/util/Exception.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <torch/csrc/profiler/orchestration/observer.h>

namespace dynaflow {
namespace {

const c10::DebugInfoKind kProfiler = c10::DebugInfoKind::PROFILER_STATE;

thread_local const std::string* current_label = nullptr;

}  // namespace

/// Whoever asks whether a profiler runs takes what it finds for a ProfilerStateBase; this one says no.
class MemoryLog::Reporter final : public torch::profiler::impl::ProfilerStateBase {
 public:
  Reporter() : ProfilerStateBase(Config(torch::profiler::impl::ProfilerState::Disabled)) {}
  torch::profiler::impl::ActiveProfilerType profilerType() override {
    return torch::profiler::impl::ActiveProfilerType::NONE;
  }
  void reportMemoryUsage(void* address, int64_t bytes, size_t, size_t, c10::Device) override {
    const std::scoped_lock lock(mutex_);
    entries_.emplace_back(reinterpret_cast<int64_t>(address), bytes,
                          current_label == nullptr ? std::string() : *current_label);
  }
  bool memoryProfilingEnabled() const override { return true; }

  std::vector<Entry> entries() const {
    const std::scoped_lock lock(mutex_);
    return entries_;
  }

 private:
  using Config = torch::profiler::impl::ProfilerConfig;
  mutable std::mutex mutex_;
  std::vector<Entry> entries_;
};

MemoryLog::~MemoryLog() {
  if (reporter_ && c10::ThreadLocalDebugInfo::get(kProfiler) == reporter_.get()) stop();
}

void MemoryLog::start() {
  TORCH_CHECK(c10::ThreadLocalDebugInfo::get(kProfiler) == nullptr,
              "memory is logged or profiled on this thread already");
  reporter_ = std::make_shared<Reporter>();
  c10::ThreadLocalDebugInfo::_push(kProfiler, reporter_);
}

void MemoryLog::stop() {
  TORCH_CHECK(reporter_ && c10::ThreadLocalDebugInfo::get(kProfiler) == reporter_.get(),
              "this thread does not run this log");
  c10::ThreadLocalDebugInfo::_pop(kProfiler);
}

void MemoryLog::copied(int64_t bytes) {
  auto* running = dynamic_cast<Reporter*>(c10::ThreadLocalDebugInfo::get(kProfiler));
  if (running != nullptr) running->reportMemoryUsage(nullptr, bytes, 0, 0, c10::kCPU);
}

std::vector<MemoryLog::Entry> MemoryLog::entries() const {
  return reporter_ ? reporter_->entries() : std::vector<Entry>();
}

MemoryLog::Label::Label(const std::string& label) : before_(current_label) { current_label = &label; }
MemoryLog::Label::~Label() { current_label = before_; }

}  // namespace dynaflow
