// Times the scheduler alone: plans whose kernels do nothing, against a oneTBB flow graph of the same runs.
//
//   dynaflow_bench_host_cost ROUNDS OPS...
//
// prints one JSON object for each count of ops: nanoseconds of a step by engine, one figure for each round.
// Both engines use one thread. The rounds of the engines alternate.

#include <tbb/flow_graph.h>
#include <tbb/global_control.h>
#include <tbb/task_arena.h>

#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "dynaflow/executor.h"
#include "dynaflow/strategy.h"

namespace dynaflow {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kParts = 2;
constexpr int kRunsPerRound = 200'000;  // of all steps of a round together

/// A chain of pairs: an elementwise op and an all-reduce of what it made. Two parts of it are `ops` runs.
GraphPtr make_chain(int ops) {
  const std::string tensor = "tensor(float32, [s0, 8])";
  std::string source =
      "graph: chain() {batch=s0}\n  %s0 = symbol() {min=2, hint=8}\n  %v0 = input(0, " + tensor + ")\n";
  const int values = ops / kParts;
  for (int i = 1; i <= values; ++i) {
    const bool reduce = i % 2 == 0;
    source += formatted("  %v{} = {}(%v{}{}) {{out=[{}], {}}}\n", i,
                        reduce ? "_c10d_functional.all_reduce.default" : "aten.relu.default", i - 1,
                        reduce ? ", \"sum\", \"tp\"" : "", tensor,
                        reduce ? "kind=collective, group=\"tp\"" : "out_target=\"aten.relu.out\"");
  }
  source += formatted("  output(%v{})\n", values);
  return std::make_shared<const Graph>(apply_corrections(parse_graph(source)));
}

PlanPtr make_plan(int ops) {
  StrategyRegistry registry;
  register_builtin_strategies(registry);
  const StrategyPtr strategy = registry.make("nanoflow", {{"min_tokens", text::Value::integral(0)}});
  // Every op a segment of its own.
  std::vector<Annotation> cuts = strategy->partition();
  cuts.push_back(split_func({"relu"}));
  const GraphPtr graph = make_chain(ops);
  const PartitionPtr segments = partition(graph, cuts);
  return lower(*make_schedule(segments, *strategy, [](std::string_view) { return 8; }));
}

class EmptyFrame final : public KernelFrame {
 public:
  void begin(const Binding&, bool) override {}
  std::shared_ptr<Completion> launch(RunId) override { return nullptr; }
  void free(SlotId) override {}
  void end() override {}
  void poison() override {}
};

class EmptyKernels final : public KernelProvider {
 public:
  std::unique_ptr<KernelFrame> make_frame() override { return std::make_unique<EmptyFrame>(); }
};

class PlanReplay {
 public:
  explicit PlanReplay(const PlanPtr& plan)
      : executor_(plan, std::make_shared<Binder>(plan), std::make_shared<EmptyKernels>(), make_cpu_device()) {
  }

  void step() {
    Executor::Lease frame = executor_.acquire();
    executor_.run(*frame, sizes_);
  }

 private:
  Executor executor_;
  std::vector<int64_t> sizes_{8};
};

/// The same runs as nodes, with an edge where one reads what another made, and where collectives of the
/// group follow each other.
class FlowGraph {
 public:
  explicit FlowGraph(int ops) : start_(graph_) {
    Node* last_reduce = nullptr;
    std::vector<Node*> last(kParts, nullptr);
    for (int i = 1; i <= ops / kParts; ++i) {
      for (int part = 0; part < kParts; ++part) {
        Node& node = *nodes_.emplace_back(std::make_unique<Node>(graph_, [](const Message&) {}));
        Node*& before = last[static_cast<size_t>(part)];
        if (before == nullptr) {
          tbb::flow::make_edge(start_, node);
        } else {
          tbb::flow::make_edge(*before, node);
        }
        before = &node;
        if (i % 2 != 0) continue;
        if (last_reduce != nullptr) tbb::flow::make_edge(*last_reduce, node);
        last_reduce = &node;
      }
    }
  }

  void step() {
    start_.try_put(Message());
    graph_.wait_for_all();
  }

 private:
  using Message = tbb::flow::continue_msg;
  using Node = tbb::flow::continue_node<Message>;
  tbb::flow::graph graph_;
  tbb::flow::broadcast_node<Message> start_;
  std::vector<std::unique_ptr<Node>> nodes_;
};

template <typename Engine>
double step_ns(Engine& engine, int steps) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < steps; ++i) engine.step();
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
  return took.count() / steps;
}

Json measure(int ops, int rounds) {
  const PlanPtr plan = make_plan(ops);
  PlanReplay replay(plan);
  FlowGraph flow(ops);
  const int steps = std::max(kRunsPerRound / ops, 3);
  std::vector<double> replayed;
  std::vector<double> flown;
  for (int round = -1; round < rounds; ++round) {  // the first warms up
    const double ours = step_ns(replay, steps);
    const double theirs = step_ns(flow, steps);
    if (round < 0) continue;
    replayed.push_back(ours);
    flown.push_back(theirs);
  }
  return {
      {"runs", plan->runs.size()}, {"events", plan->events}, {"executor", replayed}, {"flow graph", flown}};
}

}  // namespace
}  // namespace dynaflow

int main(int count, char** arguments) {
  if (count < 3) {
    std::cerr << "usage: dynaflow_bench_host_cost ROUNDS OPS...\n";
    return 2;
  }
  try {
    const tbb::global_control one(tbb::global_control::max_allowed_parallelism, 1);
    tbb::task_arena arena(1);
    for (int i = 2; i < count; ++i) {
      arena.execute([&] {
        std::cout << dynaflow::measure(std::stoi(arguments[i]), std::stoi(arguments[1])).dump() << std::endl;
      });
    }
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "dynaflow_bench_host_cost: " << error.what() << "\n";
    return 1;
  }
}
