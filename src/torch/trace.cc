#include "torch/trace.h"

namespace dynaflow {

int64_t TraceRecorder::now_ns() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

TraceRecorder::TraceRecorder(size_t runs, std::vector<bool> asynchronous)
    : asynchronous_(std::move(asynchronous)),
      start_(runs),
      end_(runs),
      origin_monotonic_(now_ns()),
      origin_realtime_(
          std::chrono::nanoseconds(std::chrono::system_clock::now().time_since_epoch()).count()) {}

std::string TraceRecorder::text() const {
  const auto microseconds = [this](int64_t ns) {
    return static_cast<double>(ns - origin_monotonic_) / 1000.0;
  };
  std::string text = formatted("clock {} {}\n", origin_monotonic_, origin_realtime_);
  for (size_t run = 0; run < start_.size(); ++run) {
    const int64_t start = start_[run].load(std::memory_order_relaxed);
    const int64_t end = end_[run].load(std::memory_order_relaxed);
    if (start == 0 || end == 0) continue;
    text += formatted("{} {:.3f} {:.3f}\n", run, microseconds(start), microseconds(end));
  }
  return text;
}

}  // namespace dynaflow
