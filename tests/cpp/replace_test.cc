#include <doctest/doctest.h>

#include <algorithm>

#include "dynaflow/verify.h"
#include "executor_plans.h"
#include "proof/oracle.h"
#include "proof/trial.h"

using namespace dynaflow;        // NOLINT(google-build-using-namespace)
using namespace dynaflow::test;  // NOLINT(google-build-using-namespace)

namespace {

constexpr const char* kChain = R"(graph: chain {batch=s, tokens=s}
  %s = symbol() {min=2, hint=8}
  %x = input(0, tensor(float32, [s, 8]))
  %w = parameter(1, tensor(float32, [8, 8]))
  %a = aten.mm.default(%x, %w) {out=[tensor(float32, [s, 8])], out_target="aten.mm.out"}
  %b = aten.add.Tensor(%a, %x, 1) {out=[tensor(float32, [s, 8])], out_target="aten.add.out"}
  %c = aten.relu.default(%b) {out=[tensor(float32, [s, 8])], out_target="aten.relu.out"}
  %d = aten.mul.Tensor(%b, %c) {out=[tensor(float32, [s, 8])], out_target="aten.mul.out"}
  output(%d)
)";

Scheduler chain_scheduler(int parts) {
  const auto graph = std::make_shared<const Graph>(parse_graph(kChain));
  Scheduler s(partition(graph, {split_func({"mm|add|relu|mul"})}), "chain",
              [](std::string_view) -> int64_t { return 9; });
  if (parts > 1) s.split(parts);
  return s;
}

std::vector<std::string> names(const std::vector<ReadyOp>& ops) {
  std::vector<std::string> result;
  for (const ReadyOp& op : ops) result.push_back(formatted("{}[{}]", op.name(), op.part()));
  return result;
}

Replacement mm_add(bool out = true) {
  return {.name = "fused",
          .target = "test.mm_add.default",
          .out_target = out ? "test.mm_add.out" : "",
          .args = {{ValueRef{0}}, {ValueRef{1}}, {ValueRef{0}}}};
}

/// `mm` and `add` replaced in part 0, in parts 1 and 2 together, or as they are.
PlanPtr chain_plan(bool replaced, bool out) {
  Scheduler s = chain_scheduler(3);
  while (!s.get_ready_ops().empty()) {
    std::vector<ReadyOp> ready = s.get_ready_ops();
    if (!replaced || ready[0].name() != "mm") {
      s.execute(ready[0]);
      continue;
    }
    std::vector<ReadyOp> ops = {ready[0]};
    if (ready[0].part() > 0) ops.push_back(ready[1]);
    const std::vector<ReadyOp> next = s.next_ops(ops);
    ops.insert(ops.end(), next.begin(), next.end());
    s.execute(ops, {.stream = "compute", .after = {}, .replacement = mm_add(out)});
  }
  return lower(*s.finish());
}

RandomPlan fused_options(uint64_t seed, bool fuse = true) {
  return {.seed = seed,
          .ops = 5 + static_cast<int>(seed % 5),
          .parts = 1 + static_cast<int>(seed % 3),
          .network = seed % 4 != 0,
          .side = seed % 3 != 0,
          .fuse = fuse};
}

}  // namespace

TEST_CASE("the ops that follow others are those that they make ready") {
  Scheduler s = chain_scheduler(2);
  const std::vector<ReadyOp> ready = s.get_ready_ops();
  CHECK(names(ready) == std::vector<std::string>{"mm[0]", "mm[1]"});
  const std::vector<ReadyOp> first = {ready[0]};
  CHECK(names(s.next_ops(first)) == std::vector<std::string>{"add[0]"});
  CHECK(names(s.next_ops(ready)) == std::vector<std::string>{"add[0]", "add[1]"});
  const std::vector<ReadyOp> two = {ready[0], s.next_ops(first)[0]};
  CHECK(names(s.next_ops(two)) == std::vector<std::string>{"relu[0]"});
  const std::vector<ReadyOp> three = {two[0], two[1], s.next_ops(two)[0]};
  CHECK(names(s.next_ops(three)) == std::vector<std::string>{"mul[0]"});
  CHECK(names(s.get_ready_ops()) == names(ready));
}

TEST_CASE("a region's signature has what is read from outside and what is read outside") {
  Scheduler s = chain_scheduler(2);
  std::vector<ReadyOp> ops = {s.get_ready_ops()[1]};
  ops.push_back(s.next_ops(ops)[0]);
  ops.push_back(s.next_ops(ops)[0]);
  CHECK(print(s.signature(ops)) ==
        "(%x float32[p1, 8], %w float32[8, 8]) -> (%b float32[p1, 8], %c float32[p1, 8])");
  CHECK(s.evaluate(s.signature(ops).inputs[0].shape[0]) == 4);
}

TEST_CASE("a plan with replaced segments gives what the segments give, in any parts") {
  for (const bool out : {true, false}) {
    CAPTURE(out);
    const PlanPtr plan = chain_plan(true, out);
    CHECK(objection(plan) == "");
    CHECK(*parse_plan(print(*plan)) == *plan);
    REQUIRE(plan->replacing.size() == 1);
    CHECK(plan->runs[0].name == "mb0/fused(mm+add)");
    CHECK(plan->runs[1].name == "mb1-2/fused(mm+add)");
    Engine replaced(plan);
    Engine own(chain_plan(false, out));
    for (const int64_t batch : {6, 9, 33})
      CHECK(same_bits(replaced.run(batch, 1, {.poison = true, .delays_us = {}}), own.run(batch, 1)));
  }
}

TEST_CASE("what a replacement makes of itself takes no memory") {
  const auto bytes = [](const PlanPtr& plan) {
    Binding binding;
    Binder(plan).bind({9}, binding);
    return binding.arena_bytes;
  };
  const PlanPtr plan = chain_plan(true, true);
  CHECK(bytes(plan) < bytes(chain_plan(false, true)));
  CHECK(std::none_of(plan->slots.begin(), plan->slots.end(),
                     [&](const Slot& slot) { return plan->graph->values[slot.value].name == "a"; }));
}

TEST_CASE("random plans with fused and replaced segments are right, and compute the same") {
  int replaced = 0;
  int fused = 0;
  for (uint64_t seed = 0; seed < 250; ++seed) {
    CAPTURE(seed);
    const PlanPtr plan = make_random_plan(fused_options(seed));
    replaced += static_cast<int>(!plan->replacing.empty());
    fused += static_cast<int>(std::any_of(plan->runs.begin(), plan->runs.end(),
                                          [](const Run& run) { return run.segments.size() > 1; }));
    CHECK(objection(plan) == "");
    CHECK(*parse_plan(print(*plan)) == *plan);
    CHECK(Oracle(plan, {7}).explore(100000).harm == "");
    Engine engine(plan);
    Engine own(make_random_plan(fused_options(seed, false)));
    CHECK(same_bits(engine.run(7, seed, {.poison = true, .delays_us = {}}), own.run(7, seed)));
  }
  CHECK(replaced >= 10);
  CHECK(fused >= 100);
}

TEST_CASE("the verifier catches harmful mutants of plans with replaced segments") {
  Tallies tallies;
  int tried = 0;
  for (uint64_t seed = 0; seed < 120 && tried < 12; ++seed) {
    const PlanPtr plan = make_random_plan(fused_options(seed));
    if (plan->replacing.empty()) continue;
    ++tried;
    try_mutants(plan, {.sizes = {{7}}, .states = 50000}, tallies,
                [&](const Mutant& mutant, const Verdict& verdict, const std::string&) {
                  CAPTURE(seed);
                  CAPTURE(mutant.kind);
                  CAPTURE(mutant.what);
                  CAPTURE(verdict.harm);
                  CHECK_FALSE(verdict.harmful());
                });
  }
  CHECK(tallies["order swapped"].harmful > 10);
  CHECK(tallies["offset shifted"].harmful > 50);
}

TEST_CASE("a plan whose replacement is not what it stands for is refused") {
  const PlanPtr plan = chain_plan(true, true);
  const auto value = [&](std::string_view name) {
    for (size_t id = 0; id < plan->graph->values.size(); ++id)
      if (plan->graph->values[id].name == name) return static_cast<ValueId>(id);
    return kNoId;
  };
  Plan reads_inside = *plan;
  reads_inside.replacing[0].op.args[0] = {ValueRef{value("a")}};
  CHECK_THROWS_AS(check(reads_inside), PlanError);
  Plan reads_more = *plan;
  reads_more.replacing[0].op.args[0] = {ValueRef{value("c")}};
  CHECK_THROWS_AS(check(reads_more), PlanError);
  Plan makes_other = *plan;
  makes_other.replacing[0].op.outputs[0] = value("c");
  CHECK_THROWS_AS(check(makes_other), PlanError);
  Plan less = *plan;
  less.replacing[0].ops.clear();
  CHECK_THROWS_AS(check(less), PlanError);
}

TEST_CASE("a replacement that would use another part's rows is refused by name") {
  Plan plan = *chain_plan(true, true);
  for (Run& run : plan.runs) {
    if (run.first_part != 0 || run.name.find("fused") == std::string::npos) continue;
    run.first_part = 1;
    run.last_part = 2;
  }
  const auto violation = verify(plan);
  REQUIRE(violation);
  CHECK(violation->kind == Violation::Kind::kGeometry);
  CHECK(violation->first.what.find("test.mm_add.default") != std::string::npos);
}

TEST_CASE("equal replacements are one, and others of the same name get a number") {
  Scheduler s = chain_scheduler(3);
  for (const bool out : {true, true, false}) {
    std::vector<ReadyOp> ops = {s.get_ready_ops()[0]};
    while (ops[0].name() != "mm") {
      s.execute(ops[0]);
      ops = {s.get_ready_ops()[0]};
    }
    ops.push_back(s.next_ops(ops)[0]);
    s.execute(ops, {.stream = "compute", .after = {}, .replacement = mm_add(out)});
  }
  s.run_sequentially();
  const SchedulePtr schedule = s.finish();
  REQUIRE(schedule->replacements.size() == 2);
  CHECK(schedule->replacements[0].name == "fused");
  CHECK(schedule->replacements[1].name == "fused#2");
}

TEST_CASE("a segment that is not split is refused beside one part of another") {
  const auto graph = std::make_shared<const Graph>(parse_graph(R"(graph: g {batch=s, tokens=s}
  %s = symbol() {min=2, hint=8}
  %x = input(0, tensor(float32, [s, 8]))
  %a = aten.relu.default(%x) {out=[tensor(float32, [s, 8])], out_target="aten.relu.out"}
  %b = mylib.mystery.default(%a) {out=[tensor(float32, [s, 8])]}
  output(%b)
)"));
  Scheduler s(partition(graph, {}), "mine", [](std::string_view) -> int64_t { return 8; });
  s.split(2);
  s.execute(s.get_ready_ops()[0]);
  std::vector<ReadyOp> ops = s.get_ready_ops();
  REQUIRE(names(s.next_ops(ops)) == std::vector<std::string>{"mystery[0]"});
  ops.push_back(s.next_ops(ops)[0]);
  CHECK_THROWS_WITH_AS(
      s.execute(ops),
      doctest::Contains("mystery cannot be launched with relu: it is given on parts [0, 2), and relu on "
                        "parts [1, 2); a launch has each of its segments on the same parts"),
      ScheduleError);
}
