#pragma once
#include <atomic>
#include <mutex>
#include <vector>

#include "dynaflow/test_kernels.h"
#include "kernels/test/collective_worker.h"
#include "kernels/test/tensor_ops.h"

namespace dynaflow::test {

struct PreparedOp {
  const OpLaunch* launch = nullptr;
  Kernel kernel;  // empty: an all-reduce
  OpParams params;
};

/// Registers of the size program that describe a slot.
struct SlotRegisters {
  std::vector<int> sizes;
  std::vector<int> strides;
  int offset = 0;
};

/// What all frames of one provider share.
struct Shared {
  Shared(PlanPtr plan, Binder& binder, TestKernelOptions options);
  int64_t next_delay();

  PlanPtr plan;
  TestKernelOptions options;
  std::vector<std::vector<PreparedOp>> runs;
  std::vector<SlotRegisters> slots;
  std::vector<int> outputs;       // registers of OutputStorage::elements
  std::vector<int> output_sizes;  // registers of outputs that are sizes, else kNoId
  std::atomic<int64_t> live{0};
  std::atomic<RunId> failing{kNoId};
  std::atomic<uint64_t> delays{0};
  CollectiveWorker worker;
};

class TestFrame final : public TestKernelFrame {
 public:
  explicit TestFrame(std::shared_ptr<Shared> shared);

  void set_arguments(std::vector<TestTensor> arguments) override { arguments_ = std::move(arguments); }
  std::vector<TestTensor> take_outputs() override { return std::move(results_); }

  void begin(const Binding& binding, bool changed) override;
  std::shared_ptr<Completion> launch(RunId run) override;
  void free(SlotId slot) override;
  void end() override;
  void poison() override { fill_nan(arena_); }

 private:
  using Memory = std::shared_ptr<std::vector<float>>;

  std::shared_ptr<Completion> launch_op(const PreparedOp& op, bool fail);
  View view(SlotId id) const;
  View shape_of(SlotId id) const;
  float* base(const Slot& slot) const;
  View make_fresh(SlotId id);
  TestTensor result(const PlanOutput& output, int size_register) const;

  std::shared_ptr<Shared> shared_;
  const Binding* binding_ = nullptr;
  std::vector<TestTensor> arguments_;
  std::vector<float> arena_;
  std::vector<Memory> outputs_;
  std::vector<Memory> made_;  // by SlotId
  std::mutex freed_mutex_;
  std::vector<Memory> freed_;  // kept to the end of the run: who reads them too late finds NaN
  std::vector<TestTensor> results_;
};

}  // namespace dynaflow::test
