#pragma once
#include <ATen/ThreadLocalState.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/stack.h>

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "dynaflow/kernels.h"
#include "torch/bare_calls.h"
#include "torch/prepared.h"
#include "torch/trace.h"

namespace dynaflow {

/// CPU time of the calling thread.
int64_t thread_cpu_ns();
/// What reading that clock takes of it.
int64_t clock_reading_ns();

/// What one stream of a frame counts; streams may run on different threads.
struct alignas(64) LaunchCounters {
  int64_t launches = 0;
  int64_t fresh_results = 0;  // tensors that kernels allocated
  int64_t copied_bytes = 0;   // results copied into their slots
  int64_t kernel_ns = 0;      // thread CPU time inside kernels, while they are timed
  int64_t timed = 0;          // kernels in kernel_ns
  int64_t step_ns = 0;        // the calling thread's CPU time of whole steps, while kernels are timed
  int64_t caller_ns = 0;      // of kernel_ns, what is in step_ns
  int64_t caller_timed = 0;   // of timed, likewise
  int64_t arena_bytes = 0;    // by which the arena grew
  LaunchCounters& operator+=(const LaunchCounters& other);
};

/// The tensors of one run of a plan. Tensors of slots are made once; a run only points them at other bytes
/// and, when sizes changed, at other sizes. What the caller gets are tensors of their own.
class TorchFrame final : public KernelFrame {
 public:
  explicit TorchFrame(std::shared_ptr<const Prepared> prepared);
  ~TorchFrame() override;

  /// What the next run is given. `recorder` may be null. `measured`: kernels are timed, and named to a
  /// MemoryLog that runs. `step`: by which the host knows the states that it prepared for it.
  void set_run(std::vector<at::Tensor> arguments, std::shared_ptr<TraceRecorder> recorder, bool measured,
               int64_t step);
  /// The plan's tensor outputs of the last run, in order. Valid once the run has succeeded.
  std::vector<at::Tensor> take_outputs() { return std::move(outputs_); }
  std::vector<int64_t> take_sizes() { return std::move(sizes_); }
  /// The last run failed after it had begun and before all its collectives were issued.
  bool stopped_short() const;
  /// Keeps the kernel calls of the runs that follow, collectives apart; null stops it.
  void keep_calls(BareCalls* calls) { bare_calls_ = calls; }
  /// The calling thread's CPU time of the last run, which was measured.
  void add_step_time(int64_t ns) { lanes_.front().counters.step_ns += ns; }
  /// What was counted since the last call, over all streams.
  LaunchCounters take_counters();

  void begin(const Binding& binding, bool changed) override;
  std::shared_ptr<Completion> launch(RunId run) override;
  void free(SlotId slot) override;
  void end() override;
  void poison() override;
  void with_caller_state(const std::function<void()>& body) override;

 private:
  struct Lane {
    torch::jit::Stack stack;
    LaunchCounters counters;
  };
  struct Seen {  // a persistent external as the last run had it
    at::Tensor tensor;
    c10::Storage storage;
  };

  at::Tensor& slot(SlotId id) { return slots_[static_cast<size_t>(id)]; }
  int64_t value(int reg) const { return (*registers_)[static_cast<size_t>(reg)]; }
  const PreparedSlot& shape_of(SlotId id) const { return prepared_->slots[static_cast<size_t>(id)]; }
  void make_tensors();
  void grow_arena(int64_t bytes);
  void bind_sizes(SlotId id, int64_t offset);
  void set_storage(SlotId id, const c10::Storage& storage);
  void bind_changed_sizes();
  void bind_external(size_t index, bool changed);
  void check_external(const External& external, const at::Tensor& tensor) const;
  void bind_outputs(bool changed);
  at::Tensor output_tensor(SlotId id);
  void collect_outputs();
  void release();
  void enter_context(PartRange parts);
  PartRange all_parts() const { return {0, prepared_->plan->cut.parts}; }

  void fill(const Call& call, torch::jit::Stack& stack);
  void call(const PreparedLaunch& launch, Lane& lane);
  void call_measured(const PreparedLaunch& launch, Lane& lane);
  void deliver(const PreparedLaunch& launch, Lane& lane);
  void count_copy(const at::Tensor& result, Lane& lane) const;
  std::string misfit(SlotId id, const at::Tensor& result) const;
  void check_written(const PreparedLaunch& launch);
  void restore_written(const PreparedLaunch& launch);
  void store(SlotId id, at::Tensor result, Lane& lane);
  at::Tensor empty_like_slot(SlotId id) const;
  std::shared_ptr<Completion> start(RunId run, const PreparedLaunch& launch, Lane& lane);

  const std::shared_ptr<const Prepared> prepared_;
  std::vector<at::Tensor> slots_;
  std::vector<c10::IValue> bound_;
  std::vector<Lane> lanes_;
  std::vector<Seen> seen_;  // by external
  std::optional<c10::Device> device_;
  c10::Storage empty_;  // for slots whose bytes are not ours to keep
  c10::Storage arena_;
  int64_t arena_bytes_ = 0;

  // Of the run under way.
  std::vector<at::Tensor> arguments_;
  std::vector<at::Tensor> outputs_;
  std::vector<int64_t> sizes_;
  const std::vector<int64_t>* registers_ = nullptr;
  const Binding* binding_ = nullptr;
  std::shared_ptr<TraceRecorder> recorder_;
  std::optional<at::ThreadLocalState> caller_state_;
  int64_t step_ = 0;
  PartRange entered_;  // the parts whose state the host has; its readers are ordered among themselves
  std::atomic<int> collectives_issued_ = 0;
  bool begun_ = false;
  bool stale_ = true;  // sizes changed and are not bound yet
  bool measured_ = false;
  BareCalls* bare_calls_ = nullptr;
};

class TorchProvider final : public KernelProvider {
 public:
  explicit TorchProvider(std::shared_ptr<const Prepared> prepared) : prepared_(std::move(prepared)) {}
  std::unique_ptr<KernelFrame> make_frame() override { return std::make_unique<TorchFrame>(prepared_); }

 private:
  std::shared_ptr<const Prepared> prepared_;
};

}  // namespace dynaflow
