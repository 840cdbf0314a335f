#pragma once
#include <atomic>
#include <chrono>
#include <string>
#include <vector>

#include "dynaflow/executor.h"

namespace dynaflow {

/// When the runs of one step were launched and ended. Thread-safe: stream threads and the threads that
/// complete collectives write it. Whoever completes work may do so after the step, so it is held by
/// shared_ptr.
class TraceRecorder final : public Observer {
 public:
  /// `asynchronous[r]`: run r ends when its work completes, not when its launch returns.
  TraceRecorder(size_t runs, std::vector<bool> asynchronous);
  void on_launch(RunId run) override { stamp(start_[static_cast<size_t>(run)]); }
  void on_return(RunId run) override {
    if (!asynchronous_[static_cast<size_t>(run)]) completed(run);
  }
  void completed(RunId run) { stamp(end_[static_cast<size_t>(run)]); }
  /// "clock <CLOCK_MONOTONIC ns> <CLOCK_REALTIME ns>" of time 0, then "<run> <start us> <end us>" per
  /// finished run.
  std::string text() const;

 private:
  static int64_t now_ns();
  void stamp(std::atomic<int64_t>& cell) const { cell.store(now_ns(), std::memory_order_relaxed); }

  std::vector<bool> asynchronous_;
  std::vector<std::atomic<int64_t>> start_;
  std::vector<std::atomic<int64_t>> end_;
  int64_t origin_monotonic_;
  int64_t origin_realtime_;
};

}  // namespace dynaflow
