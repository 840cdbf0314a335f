#pragma once
#include <ATen/core/Dict.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "dynaflow/executor.h"
#include "torch/frame.h"
#include "torch/runtime.h"

namespace dynaflow {

/// A plan ready to run on torch's kernels. Thread-safe; runs with collectives, or readers of the host's
/// state, take turns.
class Engine : public torch::CustomClassHolder {
 public:
  using Outputs = std::tuple<std::vector<at::Tensor>, std::vector<int64_t>>;

  /// `constants`: the capture's, by index. `cores`: see StreamCores. Throws ParseError or PlanError naming
  /// what torch cannot run.
  Engine(c10::intrusive_ptr<Runtime> runtime, const std::string& plan_text, std::vector<at::Tensor> constants,
         const c10::Dict<std::string, std::vector<int64_t>>& cores);

  /// Runs the plan on the caller's tensor arguments, given by index, with the values of the graph's symbols
  /// in order. Returns its tensor outputs and its size outputs, each in order.
  Outputs run(std::vector<at::Tensor> arguments, const std::vector<int64_t>& symbols);
  /// The same in a step that the host knows by the number `step`, and as tests and measurement ask: see
  /// RunOptions.
  Outputs run_with(std::vector<at::Tensor> arguments, const std::vector<int64_t>& symbols, bool serial,
                   bool poison, const std::vector<int64_t>& delays_us, int64_t step);
  /// Nanoseconds of a step, and of the bare calls of its kernels in a loop, in rounds of `repeats` that
  /// alternate: one of each for each round. For plans without collectives, whose steps run serially.
  std::tuple<std::vector<int64_t>, std::vector<int64_t>> time_against_bare_calls(
      const std::vector<at::Tensor>& arguments, const std::vector<int64_t>& symbols, int64_t rounds,
      int64_t repeats);
  /// Whether the plan is right for these sizes.
  bool accepts(const std::vector<int64_t>& symbols) const { return binder_->accepts(symbols); }
  /// Rows of each part of the batch; empty when the graph has no batch symbol.
  std::vector<int64_t> parts(const std::vector<int64_t>& symbols) const;

  /// Bytes of the arena in a step of these sizes. Throws PlanError when they are illegal for the plan.
  int64_t planned_bytes(const std::vector<int64_t>& symbols) const;

  /// From now on each step is traced, until take_trace().
  void start_trace();
  /// The last traced step as TraceRecorder::text(), or empty when there was none.
  std::string take_trace();

  /// Totals since construction: steps, launches, fresh_results, copied_bytes, events, handoffs and
  /// arena_bytes (now held, by all frames). Of measured steps only: kernel_ns (thread CPU time inside
  /// kernels), host_ns (that of the calling thread outside of them) and clock_ns (what the timing itself
  /// took, in neither).
  c10::Dict<std::string, int64_t> counters() const;
  /// Whether to time kernels, and to name them to a MemoryLog. Slows steps down by a clock reading before and
  /// after each.
  void measure(bool on);

 private:
  Outputs execute(std::vector<at::Tensor> arguments, const std::vector<int64_t>& symbols, RunOptions options,
                  int64_t step);
  void check_groups() const;
  void break_groups(const TorchFrame& frame, const std::string& reason);
  std::shared_ptr<TraceRecorder> make_recorder();
  void count(TorchFrame& frame, int64_t steps);

  const pid_t process_ = getpid();
  c10::intrusive_ptr<Runtime> runtime_;
  PlanPtr plan_;
  std::shared_ptr<Binder> binder_;
  std::shared_ptr<const Prepared> prepared_;
  std::unique_ptr<Executor> executor_;
  std::atomic<bool> tracing_ = false;
  std::atomic<bool> measured_ = false;
  mutable std::mutex mutex_;  // of what follows
  std::shared_ptr<TraceRecorder> last_trace_;
  LaunchCounters totals_;
  int64_t steps_ = 0;
  int64_t clock_reading_ns_ = 0;
};

}  // namespace dynaflow
