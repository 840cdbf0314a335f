// Times how a plan is made from a captured graph, stage by stage, on one thread.
//
//   dynaflow_bench_plan_time GRAPH STRATEGY PARTS REPEATS
//
// prints one JSON object: counts of what was made, and for every stage its milliseconds in each repeat.

#include <chrono>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "dynaflow/plan.h"
#include "dynaflow/strategy.h"
#include "dynaflow/verify.h"

namespace dynaflow {
namespace {

using Json = nlohmann::ordered_json;

struct Request {
  std::string graph;
  std::string strategy;
  int64_t parts = 2;
  int repeats = 15;
};

GraphPtr read_graph(const std::string& path) {
  const std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::ostringstream text;
  text << file.rdbuf();
  return std::make_shared<const Graph>(apply_corrections(parse_graph(text.str())));
}

/// Splits whatever the batch is: what a size guard would decide is not what is timed here.
StrategyPtr make_strategy(const Request& request) {
  StrategyRegistry registry;
  register_builtin_strategies(registry);
  if (request.strategy != "nanoflow") return registry.make(request.strategy);
  return registry.make(request.strategy, {{"parts", text::Value::integral(request.parts)},
                                          {"min_tokens", text::Value::integral(0)}});
}

/// Runs a stage and keeps its milliseconds under its name.
class Stopwatch {
 public:
  template <typename Stage>
  auto time(const char* name, Stage stage) {
    const auto start = std::chrono::steady_clock::now();
    auto made = stage();
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    stages_[name].push_back(took.count());
    return made;
  }
  const Json& stages() const { return stages_; }

 private:
  Json stages_ = Json::object();
};

Json measure(const Request& request) {
  const GraphPtr graph = read_graph(request.graph);
  const StrategyPtr strategy = make_strategy(request);
  const auto hint = [&](std::string_view name) { return graph->find_symbol(name)->hint; };
  Stopwatch watch;
  Json found;
  for (int repeat = 0; repeat < request.repeats; ++repeat) {
    const PartitionPtr cut = watch.time("partition", [&] { return partition(graph, strategy->partition()); });
    const SchedulePtr schedule = watch.time("schedule", [&] { return make_schedule(cut, *strategy, hint); });
    const PlanPtr plan = watch.time("lower", [&] { return lower(*schedule); });
    const auto wrong = watch.time("verify", [&] { return verify(*plan); });
    if (wrong) throw std::runtime_error("the plan has a race");
    found = {{"ops", graph->ops.size()},    {"segments", cut->segments.size()},
             {"runs", plan->runs.size()},   {"parts", plan->cut.parts},
             {"slots", plan->slots.size()}, {"buffers", plan->buffers.size()}};
  }
  found["ms"] = watch.stages();
  return found;
}

}  // namespace
}  // namespace dynaflow

int main(int count, char** arguments) {
  if (count != 5) {
    std::cerr << "usage: dynaflow_bench_plan_time GRAPH STRATEGY PARTS REPEATS\n";
    return 2;
  }
  try {
    const dynaflow::Request request{arguments[1], arguments[2], std::stoll(arguments[3]),
                                    std::stoi(arguments[4])};
    std::cout << dynaflow::measure(request).dump() << "\n";
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "dynaflow_bench_plan_time: " << error.what() << "\n";
    return 1;
  }
}
