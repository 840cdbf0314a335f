#include "dynaflow/verify.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "executor_plans.h"
#include "proof/mutants.h"
#include "proof/oracle.h"
#include "proof/trial.h"

using namespace dynaflow;        // NOLINT(google-build-using-namespace)
using namespace dynaflow::test;  // NOLINT(google-build-using-namespace)

namespace {

constexpr int64_t kStates = 200000;

RandomPlan random_options(uint64_t seed) {
  return {.seed = seed,
          .ops = 3 + static_cast<int>(seed % 5),
          .parts = 1 + static_cast<int>(seed % 3),
          .network = seed % 4 != 0,
          .side = seed % 3 != 0};
}

PlanPtr sequential_plan(const char* source) {
  const auto graph = std::make_shared<const Graph>(parse_graph(source));
  Scheduler s(partition(graph, {}), "sequential", [](std::string_view) -> int64_t { return 8; });
  s.run_sequentially();
  return lower(*s.finish());
}

}  // namespace

TEST_CASE("random plans are right, for the verifier and for the oracle") {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    CAPTURE(seed);
    const PlanPtr plan = make_random_plan(random_options(seed));
    CHECK(objection(plan) == "");
    const Verdict verdict = Oracle(plan, {7}).explore(kStates);
    CHECK(verdict.harm == "");
  }
}

TEST_CASE("one op may change two views of one storage") {
  const PlanPtr plan = sequential_plan(R"(graph: g {batch=s0, tokens=s0}
  %s0 = symbol() {min=2, hint=8}
  %x = input(0, tensor(float32, [s0, 64]))
  %a = aten.relu.default(%x) {out=[tensor(float32, [s0, 64])], out_target="aten.relu.out"}
  %q, %k = aten.split.Tensor(%a, 32, 1) {out=[tensor(float32, [s0, 32], [64, 1]), tensor(float32, [s0, 32], [64, 1], 32)], kind=view, alias=[%a, %a]}
  host.rotate.default(%q, %k) {out=[], name="rotate", kind=opaque, writes=[%q, %k]}
  %b = aten.neg.default(%a) {out=[tensor(float32, [s0, 64])], out_target="aten.neg.out"}
  output(%b)
)");
  CHECK(objection(plan) == "");
}

TEST_CASE("the verifier catches every mutant that the oracle shows to misbehave, and objects to no other") {
  Tallies tallies;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const auto disagree = [&](const Mutant& mutant, const Verdict& verdict, const std::string& said) {
      CAPTURE(seed);
      CAPTURE(mutant.kind);
      CAPTURE(mutant.what);
      CAPTURE(verdict.harm);
      CAPTURE(said);
      CHECK_FALSE(verdict.harmful());
      // Which buffers share bytes is proved for all sizes, so a mutant that moves bytes or the times of their
      // use may be right at these sizes and still be refused.
      const bool about_events = mutant.kind.starts_with("wait") || mutant.kind.starts_with("record") ||
                                mutant.kind.starts_with("free");
      CHECK_FALSE((about_events && verdict.complete));
    };
    try_mutants(make_random_plan(random_options(seed)), {.sizes = {{7}}, .states = kStates}, tallies,
                disagree);
  }
  for (const char* kind : {"wait deleted", "wait moved", "record deleted", "record moved", "order swapped",
                           "offset shifted", "lifetime shortened"})
    CHECK_MESSAGE(tallies[kind].harmful >= 50, kind);
}

TEST_CASE("a size that is a maximum of which one side is surely the greater is known") {
  // logits[:, -k:] of a batch keep at least one row, as torch writes it.
  const auto graph = std::make_shared<const Graph>(parse_graph(R"(graph: kept {batch=s, tokens=s}
  %s = symbol() {min=2, hint=8}
  %n = symbol() {min=2, hint=8}
  %k = symbol() {min=0, max=0, hint=0}
  %x = input(0, tensor(float32, [s, n + k, 4], [4*max(1, n + k), 4, 1]))
  %a = aten.mm.default(%x, %x) {out=[tensor(float32, [s, n + k, 4], [4*max(1, n + k), 4, 1])], out_target="aten.mm.out"}
  %b = aten.relu.default(%a) {out=[tensor(float32, [s, n + k, 4], [4*max(1, n + k), 4, 1])], out_target="aten.relu.out"}
  output(%b)
)"));
  Scheduler s(partition(graph, {split_func({"relu"})}), "kept",
              [](std::string_view) -> int64_t { return 8; });
  s.run_sequentially();
  CHECK(objection(lower(*s.finish())) == "");
}

TEST_CASE("a buffer is not forgotten while a run that may use its bytes goes on") {
  const auto graph = std::make_shared<const Graph>(parse_graph(R"(graph: last {batch=s, tokens=s}
  %s = symbol() {min=2, hint=8}
  %x = input(0, tensor(float32, [s, 4]))
  %a = aten.relu.default(%x) {out=[tensor(float32, [s, 4])], out_target="aten.relu.out"}
  %e = aten._softmax.default(%a, 1, false) {out=[tensor(float32, [s, 4])], out_target="aten._softmax.out"}
  %b = aten.exp.default(%x) {out=[tensor(float32, [s, 4])], out_target="aten.exp.out"}
  %f = aten.mul.Tensor(%b, %b) {out=[tensor(float32, [s, 4])], out_target="aten.mul.out"}
  %c = aten.exp.default(%f) {out=[tensor(float32, [s, 4])], out_target="aten.exp.out"}
  %g = aten.mul.Tensor(%c, %c) {out=[tensor(float32, [s, 4])], out_target="aten.mul.out"}
  output(%e, %f, %g)
)"));
  Scheduler s(partition(graph, {split_func({"relu", "_softmax"})}), "last",
              [](std::string_view) -> int64_t { return 8; });
  const std::vector<ReadyOp> ops = s.get_ready_ops();
  s.execute(ops[0], {.stream = "side", .after = {}});
  s.execute(ops[1]);
  const PlanPtr plan = lower(*s.finish());
  REQUIRE(objection(plan) == "");
  REQUIRE(plan->buffers.size() == 3);
  for (size_t id = 0; id < 3; ++id) {
    if (plan->buffers[id].above.empty()) continue;
    CAPTURE(id);
    const auto mutant = std::make_shared<Plan>(*plan);
    mutant->buffers[id].above.clear();
    CHECK(Oracle(mutant, {7}).explore(kStates).harm != "");
    CHECK(objection(mutant).find("nothing orders them") != std::string::npos);
  }
}

TEST_CASE("only an element-wise op may write over an input, and only over one that lies as its result does") {
  const PlanPtr plan = sequential_plan(R"(graph: over {batch=s, tokens=s}
  %s = symbol() {min=2, hint=8}
  %x = input(0, tensor(float32, [s, 4]))
  %w = parameter(1, tensor(float32, [4, 4]))
  %a = aten.mm.default(%x, %w) {out=[tensor(float32, [s, 4])], out_target="aten.mm.out"}
  %b = aten.relu.default(%a) {out=[tensor(float32, [s, 4])], out_target="aten.relu.out"}
  %c = aten._softmax.default(%b, 1, false) {out=[tensor(float32, [s, 4])], out_target="aten._softmax.out"}
  output(%c)
)");
  REQUIRE(objection(plan) == "");
  const std::vector<OpLaunch>& launches = plan->runs[0].launches;
  REQUIRE(launches.size() == 3);
  CHECK(launches[1].delivery == Delivery::kOverInput);
  CHECK(launches[2].delivery == Delivery::kOut);
  const auto changed = [&](const std::function<void(Plan&)>& change) {
    const auto mutant = std::make_shared<Plan>(*plan);
    change(*mutant);
    return objection(mutant);
  };
  const std::string unordered = "nothing orders them";
  CHECK(changed([](Plan& p) { p.runs[0].launches[1].delivery = Delivery::kOut; }).find(unordered) !=
        std::string::npos);
  CHECK(changed([](Plan& p) {
          OpLaunch& softmax = p.runs[0].launches[2];
          softmax.delivery = Delivery::kOverInput;
          Slot& made = p.slots[softmax.outputs[0]];
          const Slot& read = p.slots[softmax.inputs[0]];
          made.root = read.root;
          made.index = read.index;
        }).find(unordered) != std::string::npos);
}

namespace {

/// Runs `first` and then `second`, two segments of a graph, on two parts and a stream each.
PlanPtr two_streams(const char* source, const std::vector<std::pair<const char*, int>>& order) {
  const auto graph = std::make_shared<const Graph>(parse_graph(source));
  Scheduler s(partition(graph, {split_func({"update"}), split_func({"attend"}), split_func({"relu"})}), "two",
              [](std::string_view) -> int64_t { return 8; });
  s.split(2);
  for (const auto& [name, part] : order) {
    const std::vector<ReadyOp> ready = s.get_ready_ops();
    const auto op =
        std::find_if(ready.begin(), ready.end(), [&, name = name, part = part](const ReadyOp& known) {
          return known.name() == name && known.part() == part;
        });
    REQUIRE(op != ready.end());
    s.execute(*op, {.stream = std::string(name) == "attend" ? "side" : "compute", .after = {}});
  }
  return lower(*s.finish());
}

}  // namespace

TEST_CASE("reads of the host's state have one order, whatever the streams") {
  const PlanPtr plan = two_streams(R"(graph: host {batch=s, tokens=s}
  %s = symbol() {min=2, hint=8}
  %x = input(0, tensor(float32, [s, 4]))
  %t = host.update.default(%x) {out=[tensor(float32, [0])], kind=opaque, reads_context=true}
  %b = host.attend.default(%x, %t) {out=[tensor(float32, [s, 4])], kind=opaque, reads_context=true}
  output(%b)
)",
                                   {{"update", 0}, {"attend", 0}, {"update", 1}, {"attend", 1}});
  REQUIRE(objection(plan) == "");
  const std::vector<Instruction>& compute = plan->streams[0].code;
  const auto wait = std::find_if(compute.begin(), compute.end(), [](const Instruction& instruction) {
    return instruction.kind == Instruction::Kind::kWait;
  });
  REQUIRE(wait != compute.end());
  const auto mutant = std::make_shared<Plan>(*plan);
  mutant->streams[0].code.erase(mutant->streams[0].code.begin() + (wait - compute.begin()));
  CHECK(objection(mutant).find("are reads of the host's state, and nothing orders them") !=
        std::string::npos);
}

TEST_CASE("reads of the host's state go through the parts in their order") {
  const PlanPtr plan = two_streams(R"(graph: host {batch=s, tokens=s}
  %s = symbol() {min=2, hint=8}
  %x = input(0, tensor(float32, [s, 4]))
  %a = aten.relu.default(%x) {out=[tensor(float32, [s, 4])], out_target="aten.relu.out"}
  output(%a)
)",
                                   {{"relu", 1}, {"relu", 0}});
  REQUIRE(objection(plan) == "");
  Graph graph = *plan->graph;
  graph.ops[0].effects.reads_context = true;
  const auto mutant = std::make_shared<Plan>(*plan);
  mutant->graph = std::make_shared<const Graph>(std::move(graph));
  CHECK(objection(mutant).find("'mb1/relu' reads the host's state for a later part") != std::string::npos);
}
