#pragma once
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

#include "dynaflow/executor.h"
#include "executor/program.h"
#include "executor/stream_thread.h"

namespace dynaflow {

/// What one run in flight needs: tensors, streams, events, threads. Everything is made once and used again.
class RunFrame final : public Frame {
 public:
  /// Plan and programs must outlive the frame.
  RunFrame(const Plan& plan, const Programs& programs, KernelProvider& kernels, Device& device);
  ~RunFrame() override;

  KernelFrame& kernels() override { return *kernels_; }
  /// One run of the plan; see Executor::run.
  void run(const Binder& binder, const std::vector<int64_t>& graph_symbols, const RunOptions& options);

 private:
  struct Cursor;
  /// The first error of a run. `run` is kNoId when a wait threw it: then some work on an asynchronous stream
  /// failed, and which it was is looked up once everything has ended.
  struct Failure {
    std::exception_ptr error;
    RunId run = kNoId;
    StreamId stream = kNoId;
  };

  void begin(bool changed);
  void run_overlapped();
  void run_serial();
  void walk(Cursor& cursor);
  /// `own`: the stream, when its own thread walks; null for the caller's.
  void walk_guarded(Cursor& cursor, DeviceStream* own) noexcept;
  void record_rest(const Cursor& cursor) noexcept;
  void launch(const Step& step);
  std::shared_ptr<Completion> start_kernels(RunId run);
  void drain() noexcept;
  void fail(const Step& step) noexcept;
  void forget_run() noexcept;
  void blame_async_work() noexcept;
  [[noreturn]] void raise();
  std::string describe(const Failure& failure) const;

  const Plan& plan_;
  const Programs& programs_;
  std::unique_ptr<KernelFrame> kernels_;
  std::vector<std::unique_ptr<DeviceStream>> streams_;
  std::vector<std::unique_ptr<DeviceEvent>> events_;
  std::vector<std::shared_ptr<Completion>> completions_;  // by RunId: what asynchronous runs left running
  Binding binding_;

  const RunOptions* options_ = nullptr;  // of the run in flight
  std::atomic<bool> failed_{false};
  std::mutex failure_mutex_;  // taken on failure only
  Failure failure_;
  std::vector<std::unique_ptr<StreamThread>> threads_;  // last: they use all of the above
};

}  // namespace dynaflow
