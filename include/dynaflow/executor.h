#pragma once
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "dynaflow/device.h"
#include "dynaflow/kernels.h"
#include "dynaflow/plan.h"

namespace dynaflow {

/// Sees a run's launches as they happen. Called by stream threads; must be thread-safe.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void on_launch(RunId run) = 0;  // just before the kernels start
  virtual void on_return(RunId run) = 0;  // the call returned; asynchronous work may still run
};

/// How to run a plan. The defaults are the fast path; the rest is for tests and measurement.
struct RunOptions {
  bool serial = false;             // every launch ends before the next starts, in issue order, on one thread
  bool poison = false;             // fill the arena with NaN first
  std::vector<int32_t> delays_us;  // by RunId: sleep before the launch; empty: none
  Observer* observer = nullptr;
};

/// Per-run state, pooled: a frame is used by one run at a time and keeps its buffers between runs.
class Frame {
 public:
  virtual ~Frame() = default;
  virtual KernelFrame& kernels() = 0;
};

/// Walks a plan: no queue, no lock per op. Thread-safe: each caller acquires its own frame.
class Executor {
 public:
  /// Throws PlanError when the plan is malformed (see check).
  Executor(PlanPtr plan, std::shared_ptr<Binder> binder, std::shared_ptr<KernelProvider> kernels,
           std::shared_ptr<Device> device);
  ~Executor();

  /// Returns its frame to the pool when destroyed.
  class Lease {
   public:
    Lease(Executor* owner, std::unique_ptr<Frame> frame);
    ~Lease();
    Lease(Lease&&) noexcept;
    Lease& operator=(Lease&&) = delete;
    Frame& operator*() { return *frame_; }
    Frame* operator->() { return frame_.get(); }

   private:
    Executor* owner_;
    std::unique_ptr<Frame> frame_;
  };
  Lease acquire();

  /// Runs the plan once. Throws ExecutionError naming segment, part and stream of the first failure after
  /// every stream has drained; the executor stays usable.
  void run(Frame& frame, const std::vector<int64_t>& graph_symbols, const RunOptions& options = {});

  const Plan& plan() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// When each run was launched and ended, in microseconds from the start of the step.
struct TraceEvent {
  RunId run = kNoId;
  double start_us = 0;
  double end_us = 0;
};
struct Trace {
  std::vector<TraceEvent> events;
};

}  // namespace dynaflow
