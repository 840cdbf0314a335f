#pragma once
#include <random>
#include <string>
#include <vector>

#include "dynaflow/executor.h"
#include "dynaflow/test_kernels.h"

namespace dynaflow::test {

/// Writes a plan by hand: one op a run, every tensor [4, 8], an event on every edge that crosses streams.
class PlanBuilder {
 public:
  PlanBuilder();
  StreamId stream(const std::string& name, StreamKind kind);
  /// The next argument of the caller.
  SlotId argument();
  /// A run of one op; its result is an output of the plan, or a kernel-made tensor when `fresh`.
  SlotId run(StreamId stream, const std::string& target, const std::vector<SlotId>& inputs,
             bool fresh = false);
  /// Frees a kernel-made tensor in `stream`, after what it was given so far.
  void free(StreamId stream, SlotId slot);
  PlanPtr finish();

 private:
  SlotId add_slot(Root root, int32_t index, const std::string& name, Origin origin);

  std::shared_ptr<Graph> graph_ = std::make_shared<Graph>();
  std::shared_ptr<Plan> plan_ = std::make_shared<Plan>();
  std::vector<RunId> producer_;    // by SlotId
  std::vector<EventId> event_of_;  // by RunId
  int32_t arguments_ = 0;
};

/// How a random plan is made.
struct RandomPlan {
  uint64_t seed = 0;
  int ops = 12;
  int parts = 2;
  bool network = true;  // collectives on an asynchronous stream of their own, else on the host's
  bool side = true;     // a second compute stream
  bool fuse = false;    // some launches of two segments, and test.mm_add in place of some of them
};
/// A random graph on [batch, 8], scheduled in a random order over the streams asked for, and lowered.
PlanPtr make_random_plan(const RandomPlan& options);

/// A plan with the kernels and the executor that run it.
struct Engine {
  explicit Engine(PlanPtr plan, TestKernelOptions options = {});
  /// One run in a frame of its own: the values of every output.
  std::vector<std::vector<float>> run(int64_t batch, uint64_t input_seed, const RunOptions& options = {});
  std::vector<TestTensor> run_tensors(int64_t batch, uint64_t input_seed, const RunOptions& options = {});

  PlanPtr plan;
  std::shared_ptr<TestKernels> kernels;
  std::unique_ptr<Executor> executor;
};

/// Bit for bit, so that NaN equals NaN and 0 is not -0.
bool same_bits(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b);

}  // namespace dynaflow::test
