// layer: kernels
#pragma once
#include <memory>
#include <vector>

#include "dynaflow/kernels.h"

namespace dynaflow {

/// A float32 tensor on memory that it may share with others.
struct TestTensor {
  std::shared_ptr<std::vector<float>> storage;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  int64_t offset = 0;

  /// A dense tensor. Throws GraphError when there are not as many values as elements.
  static TestTensor dense(std::vector<int64_t> sizes, std::vector<float> values);
  /// The elements in row-major order.
  std::vector<float> values() const;
};

struct TestKernelOptions {
  std::vector<TestTensor> constants;
  int world_size = 2;    // an all-reduce multiplies by it
  uint64_t seed = 0;     // of the delays
  int min_delay_us = 0;  // a collective sleeps twice, test.slow once, between these bounds
  int max_delay_us = 0;
};

/// The tensors of one run in flight, for tests to reach.
class TestKernelFrame : public KernelFrame {
 public:
  /// By tensor argument index; for the next run.
  virtual void set_arguments(std::vector<TestTensor> arguments) = 0;
  /// The outputs of the last run, by Plan::outputs; sizes are tensors of one element, what is none is empty.
  virtual std::vector<TestTensor> take_outputs() = 0;
};

/// Kernels on plain memory, so that plans run in tests without a framework: add.Tensor, mul.Tensor, relu, mm,
/// sum.dim_IntList and clone of `aten`, test.mm_add (both in one), test.slow (copies after a sleep),
/// test.fail (throws) and _c10d_functional.all_reduce. Collectives run on a worker thread, first in first
/// out, and write their result in two halves with sleeps around them, so that whoever reads too early sees
/// it. Memory that a plan gives back is filled with NaN, and so is an output before it is written.
class TestKernels : public KernelProvider {
 public:
  /// Kernel-made tensors that frames hold: 0 between runs.
  virtual int64_t live_tensors() const = 0;
  /// The next time that run `run` is launched it fails; a collective fails after its launch has returned.
  virtual void fail_next(RunId run) = 0;
};

/// Prepares the plan's kernels. Throws PlanError for an op or an element type that has no test kernel.
std::shared_ptr<TestKernels> make_test_kernels(PlanPtr plan, Binder& binder, TestKernelOptions options = {});

}  // namespace dynaflow
