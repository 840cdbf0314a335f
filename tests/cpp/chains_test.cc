#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <string>

#include "dynaflow/fusion.h"
#include "dynaflow/strategy.h"
#include "dynaflow/verify.h"
#include "random.h"

using namespace dynaflow;
using dynaflow::testing::Random;

namespace {

constexpr const char* kHead =
    "graph: g {batch=s0, tokens=s0}\n  %s0 = symbol() {min=2, hint=16}\n"
    "  %v0 = input(0, tensor(float32, [s0, 32]))\n  %w = parameter(1, tensor(float32, [32, 32]))\n";
constexpr const char* kOut = "{out=[tensor(float32, [s0, 32])]";

std::string op(int number, const std::string& call, const std::string& out_target) {
  return formatted("  %v{} = {} {}, out_target=\"{}\"}}\n", number, call, kOut, out_target);
}

/// Elementwise ops, matmuls that no chain takes, and a collective now and then.
GraphPtr random_graph(Random& random, int ops) {
  std::string source = kHead;
  for (int i = 1; i <= ops; ++i) {
    const std::string a = formatted("%v{}", random.between(std::max(0, i - 4), i - 1));
    const std::string b = formatted("%v{}", random.between(0, i - 1));
    const int64_t kind = random.between(0, 6);
    if (kind < 2)
      source += op(i, formatted("aten.mul.Tensor({}, {})", a, b), "aten.mul.out");
    else if (kind < 4)
      source += op(i, formatted("aten.relu.default({})", a), "aten.relu.out");
    else if (kind < 6)
      source += op(i, formatted("aten.mm.default({}, %w)", a), "aten.mm.out");
    else
      source += formatted(
          "  %v{} = _c10d_functional.all_reduce.default({}, \"sum\", \"tp\") {}, kind=collective, "
          "group=\"tp\"}}\n",
          i, a, kOut);
  }
  return std::make_shared<const Graph>(parse_graph(formatted("{}  output(%v{})\n", source, ops)));
}

PlanPtr plan_of(const GraphPtr& graph, const std::string& strategy, const Fusion& fusion) {
  StrategyRegistry registry;
  register_builtin_strategies(registry);
  const StrategyPtr made = strategy == "nanoflow"
                               ? registry.make(strategy, {{"min_tokens", text::Value::integral(0)}})
                               : registry.make(strategy);
  const PartitionPtr cut = partition(graph, made->partition());
  return lower(*make_schedule(cut, *made, [](std::string_view) { return int64_t{16}; }), fusion);
}

const Fusion kChains{true, {}};

}  // namespace

TEST_CASE("plans with chains are free of races, run every op once for each part and are read back") {
  size_t chains = 0;
  for (uint32_t seed = 0; seed < 300; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    const GraphPtr graph = random_graph(random, static_cast<int>(random.between(1, 24)));
    for (const char* strategy : {"sequential", "nanoflow"}) {
      const PlanPtr plan = plan_of(graph, strategy, kChains);
      const auto wrong = verify(*plan);
      CHECK_MESSAGE(!wrong, (wrong ? wrong->message : ""));
      CHECK(*parse_plan(print(*plan)) == *plan);
      chains += plan->replacing.size();
      std::map<OpId, int> rows;  // parts that computed it
      for (const Run& run : plan->runs)
        for (const OpLaunch& launch : run.launches) {
          const size_t own = graph->ops.size();
          const auto id = static_cast<size_t>(launch.op);
          for (OpId done : id < own ? std::vector<OpId>{launch.op} : plan->replacing[id - own].ops)
            rows[done] += run.last_part - run.first_part;
        }
      for (const auto& [done, count] : rows) CHECK(count == plan->cut.parts);
      CHECK(rows.size() == graph->ops.size());
    }
  }
  CHECK(chains > 300);
}

TEST_CASE("a chain takes what lies between two ops of it along, or stops") {
  const std::string mm = op(2, "aten.mm.default(%v1, %w)", "aten.mm.out");
  const std::string source = kHead + op(1, "aten.relu.default(%v0)", "aten.relu.out") + mm +
                             op(3, "aten.mul.Tensor(%v1, %v2)", "aten.mul.out") +
                             op(4, "aten.relu.default(%v3)", "aten.relu.out") + "  output(%v4)\n";
  const PlanPtr plan = plan_of(std::make_shared<const Graph>(parse_graph(source)), "sequential", kChains);
  REQUIRE(plan->replacing.size() == 1);
  CHECK(plan->replacing[0].ops == std::vector<OpId>{2, 3});  // with op 0, mm would lie between
}

TEST_CASE("chains that are alike have one kernel, whatever their values and symbols are called") {
  std::string source = kHead;
  for (int layer = 0; layer < 3; ++layer) {
    const int at = 3 * layer;
    source += op(at + 1, formatted("aten.mm.default(%v{}, %w)", at), "aten.mm.out");
    source += op(at + 2, formatted("aten.relu.default(%v{})", at + 1), "aten.relu.out");
    source += op(at + 3, formatted("aten.mul.Tensor(%v{}, %v{})", at + 2, at), "aten.mul.out");
  }
  const PlanPtr plan =
      plan_of(std::make_shared<const Graph>(parse_graph(source + "  output(%v9)\n")), "sequential", kChains);
  REQUIRE(plan->replacing.size() == 3);
  CHECK(plan->replacing[0].op.target == plan->replacing[2].op.target);
  CHECK(print(kernel_graph(*plan->graph, plan->replacing[1])) ==
        "graph: graph() {tokens=0}\n"
        "  %s0 = symbol() {min=0, hint=1021}\n"
        "  %v0 = input(0, tensor(float32, [s0, 32]))\n"
        "  %v1 = input(1, tensor(float32, [s0, 32]))\n"
        "  %v2 = aten.relu.default(%v0) {out=[tensor(float32, [s0, 32])], name=\"o0\"}\n"
        "  %v3 = aten.mul.Tensor(%v2, %v1) {out=[tensor(float32, [s0, 32])], name=\"o1\"}\n"
        "  output(%v3)\n");

  const PlanPtr without = plan_of(plan->graph, "sequential", {true, {plan->replacing[0].op.target.str()}});
  CHECK(without->replacing.empty());
}

TEST_CASE("views inside a chain go with it; what others read is a result of it") {
  const std::string source =
      std::string(kHead) + op(1, "aten.relu.default(%v0)", "aten.relu.out") +
      "  %v2 = aten.view.default(%v1, [s0, 4, 8]) {out=[tensor(float32, [s0, 4, 8])], kind=view, "
      "alias=[%v1]}\n"
      "  %v3 = aten.mul.Tensor(%v2, %v2) {out=[tensor(float32, [s0, 4, 8])], "
      "out_target=\"aten.mul.out\"}\n  output(%v3, %v1)\n";
  const PlanPtr plan = plan_of(std::make_shared<const Graph>(parse_graph(source)), "sequential", kChains);
  REQUIRE(plan->replacing.size() == 1);
  CHECK(plan->replacing[0].op.outputs.size() == 2);
  const Graph kernel = kernel_graph(*plan->graph, plan->replacing[0]);
  CHECK(kernel.ops.size() == 3);
  CHECK(kernel.ops[1].kind == OpKind::kView);
}
