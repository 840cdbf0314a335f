#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "dynaflow/explain.h"
#include "dynaflow/plan.h"
#include "dynaflow/strategy.h"
#include "random.h"

using namespace dynaflow;
using dynaflow::testing::Random;

namespace {

/// A random graph of pointwise ops, matmuls and collectives over [s0, 32] values.
GraphPtr random_graph(Random& random, int ops) {
  std::string source =
      "graph: g {batch=s0, tokens=s0}\n  %s0 = symbol() {min=2, hint=16}\n"
      "  %v0 = input(0, tensor(float32, [s0, 32]))\n  %w = parameter(1, tensor(float32, [32, 32]))\n";
  const std::string out = "{out=[tensor(float32, [s0, 32])]";
  for (int i = 1; i <= ops; ++i) {
    const std::string a = "%v" + std::to_string(random.between(0, i - 1));
    const std::string b = "%v" + std::to_string(random.between(0, i - 1));
    source += "  %v" + std::to_string(i) + " = ";
    switch (random.between(0, 3)) {
      case 0:
        source += "aten.mm.default(" + a + ", %w) " + out + ", out_target=\"aten.mm.out\"}\n";
        break;
      case 1:
        source += "aten.add.Tensor(" + a + ", " + b + ", 1) " + out + ", out_target=\"aten.add.out\"}\n";
        break;
      case 2:
        source += "aten.clone.default(" + a + ", none) " + out + "}\n";
        break;
      default:
        source += "_c10d_functional.all_reduce.default(" + a + ", \"sum\", \"tp\") " + out +
                  ", kind=collective, group=\"tp\"}\n";
    }
  }
  return std::make_shared<const Graph>(parse_graph(source + "  output(%v" + std::to_string(ops) + ")\n"));
}

/// A random legal schedule: ready ops in random order, sometimes merged, on up to three streams.
SchedulePtr random_schedule(Random& random, const GraphPtr& graph, int64_t rows) {
  std::vector<Annotation> cuts = {split_func({"all_reduce"}, {"network"})};
  if (random.coin()) cuts.push_back(split_func({"mm"}));
  Scheduler s(partition(graph, cuts), "random", [rows](std::string_view) { return rows; });
  s.split(static_cast<int>(random.between(1, 4)));
  for (std::vector<ReadyOp> ready = s.get_ready_ops(); !ready.empty(); ready = s.get_ready_ops()) {
    const auto pick = static_cast<size_t>(random.between(0, static_cast<int64_t>(ready.size()) - 1));
    ExecuteOptions options;
    options.stream = ready[pick].has_tag("network") ? "network"
                     : random.between(0, 3) == 0    ? "side"
                                                    : "compute";
    const bool merge = pick + 1 < ready.size() && ready[pick + 1].segment() == ready[pick].segment() &&
                       ready[pick + 1].first_part() == ready[pick].last_part() && random.coin();
    if (merge) {
      s.execute(std::vector<ReadyOp>{ready[pick], ready[pick + 1]}, options);
    } else {
      s.execute(ready[pick], options);
    }
  }
  return s.finish();
}

struct Lifetime {
  std::vector<std::pair<RunId, int>> accesses;
};

/// Every pair of buffers that lie on common bytes must be used one wholly after the other.
void check_no_overlap(const PlanPtr& plan, int64_t rows) {
  Binder binder(plan);
  Binding binding;
  binder.bind({rows}, binding);
  std::vector<Lifetime> lifetimes(plan->buffers.size());
  for (RunId run = 0; run < static_cast<RunId>(plan->runs.size()); ++run) {
    const std::vector<OpLaunch>& launches = plan->runs[run].launches;
    for (int position = 0; position < static_cast<int>(launches.size()); ++position)
      for (const auto& slots : {launches[position].inputs, launches[position].outputs})
        for (SlotId id : slots)
          if (id != kNoId && plan->slots[id].root == Root::kArena)
            lifetimes[plan->slots[id].index].accesses.emplace_back(run, position);
  }
  const HappensBefore order = happens_before(*plan);
  const auto before = [&](const std::pair<RunId, int>& a, const std::pair<RunId, int>& b) {
    return a.first == b.first ? a.second < b.second : order.before(a.first, b.first);
  };
  const auto dead_before = [&](const Lifetime& a, const Lifetime& b) {
    return std::all_of(a.accesses.begin(), a.accesses.end(), [&](const auto& x) {
      return std::all_of(b.accesses.begin(), b.accesses.end(), [&](const auto& y) { return before(x, y); });
    });
  };
  const auto value_of = [&](std::string_view name) -> int64_t {
    if (name == "s0") return rows;
    return binding.symbols[1 + static_cast<size_t>(name[1] - '0')];
  };
  for (size_t a = 0; a < plan->buffers.size(); ++a)
    for (size_t b = a + 1; b < plan->buffers.size(); ++b) {
      const int64_t end_a = binding.buffer_offsets[a] + plan->buffers[a].bytes.evaluate(value_of);
      const int64_t end_b = binding.buffer_offsets[b] + plan->buffers[b].bytes.evaluate(value_of);
      const bool shared = binding.buffer_offsets[a] < end_b && binding.buffer_offsets[b] < end_a;
      if (shared) CHECK((dead_before(lifetimes[a], lifetimes[b]) || dead_before(lifetimes[b], lifetimes[a])));
    }
}

}  // namespace

TEST_CASE("buffers share bytes only when one is surely dead, at every batch size of the plan") {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    const GraphPtr graph = random_graph(random, static_cast<int>(random.between(1, 14)));
    const PlanPtr plan = lower(*random_schedule(random, graph, 16));
    CHECK(*parse_plan(print(*plan)) == *plan);
    for (const int64_t rows : {8, 11, 16, 33, 200}) check_no_overlap(plan, rows);
  }
}

TEST_CASE("every data dependency of a plan is ordered") {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    const PlanPtr plan = lower(*random_schedule(random, random_graph(random, 12), 16));
    const HappensBefore order = happens_before(*plan);
    std::vector<std::vector<std::pair<RunId, const Slot*>>> writers(plan->graph->values.size());
    for (RunId run = 0; run < static_cast<RunId>(plan->runs.size()); ++run)
      for (const OpLaunch& launch : plan->runs[run].launches) {
        for (SlotId id : launch.inputs)
          for (const auto& [writer, slot] : writers[plan->slots[id].value])
            if (writer != run && slot->first_part < plan->slots[id].last_part &&
                plan->slots[id].first_part < slot->last_part)
              CHECK(order.before(writer, run));
        for (SlotId id : launch.outputs)
          if (id != kNoId) writers[plan->slots[id].value].emplace_back(run, &plan->slots[id]);
      }
  }
}

TEST_CASE("a malformed plan is refused with what is wrong") {
  Random random(7);
  const PlanPtr plan = lower(*random_schedule(random, random_graph(random, 8), 16));
  Plan twice = *plan;
  twice.streams[0].code.push_back({Instruction::Kind::kLaunch, 0});
  CHECK_THROWS_AS(check(twice), PlanError);
  Plan missing = *plan;
  missing.streams[0].code.clear();
  CHECK_THROWS_AS(check(missing), PlanError);
  Plan wild = *plan;
  wild.slots[0].value = 10000;
  CHECK_THROWS_AS(check(wild), PlanError);
}

TEST_CASE("a collective that cannot overlap says why") {
  Random random(1);
  const auto graph = std::make_shared<const Graph>(parse_graph(R"(graph: g {batch=s0, tokens=s0}
  %s0 = symbol() {min=2, hint=8}
  %x = input(0, tensor(float32, [s0, 64]))
  %a = aten.relu.default(%x) {out=[tensor(float32, [s0, 64])], out_target="aten.relu.out"}
  %b = _c10d_functional.all_reduce.default(%a, "sum", "tp") {out=[tensor(float32, [s0, 64])], kind=collective, group="tp"}
  %c = aten.neg.default(%b) {out=[tensor(float32, [s0, 64])], out_target="aten.neg.out"}
  output(%c)
)"));
  const auto reports = [&](const StrategyPtr& strategy) {
    const PartitionPtr cut = partition(graph, strategy->partition());
    return explain(*lower(*make_schedule(cut, *strategy, [](std::string_view) { return int64_t{8}; })));
  };
  const StrategyOptions one = {{"parts", text::Value::integral(1)}, {"min_tokens", text::Value::integral(0)}};
  const StrategyOptions two = {{"parts", text::Value::integral(2)}, {"min_tokens", text::Value::integral(0)}};
  CHECK(reports(make_sequential({})).at(0).reason.find("same stream") != std::string::npos);
  CHECK(reports(make_nanoflow(one)).at(0).reason.find("data dependency: the batch is not split") !=
        std::string::npos);
  const std::vector<CollectiveReport> overlapped = reports(make_nanoflow(two));
  CHECK(overlapped.at(0).overlaps == std::vector<std::string>{"mb1/relu"});
  CHECK(overlapped.at(1).overlaps == std::vector<std::string>{"mb0/neg"});
}
