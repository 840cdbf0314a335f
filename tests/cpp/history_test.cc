#include <doctest/doctest.h>

#include <algorithm>

#include "dynaflow/strategy.h"
#include "dynaflow/verify.h"

using namespace dynaflow;  // NOLINT(google-build-using-namespace)

/// Mistakes that systems which split batches and overlap kernels have shipped, each made in a right plan.

namespace {

constexpr const char* kLayer = R"(graph: layer {batch=s, tokens=s}
  %s = symbol() {min=2, hint=8}
  %x = input(0, tensor(float32, [s, 64]))
  %w = parameter(1, tensor(float32, [64, 64]))
  %a = aten.mm.default(%x, %w) {out=[tensor(float32, [s, 64])], out_target="aten.mm.out"}
  %b = _c10d_functional.all_reduce.default(%a, "sum", "tp") {out=[tensor(float32, [s, 64])], kind=collective, group="tp"}
  %c = aten.softmax.int(%b, 1) {out=[tensor(float32, [s, 64])]}
  %d = aten.mm.default(%c, %w) {out=[tensor(float32, [s, 64])], out_target="aten.mm.out"}
  output(%d)
)";

using Streams = std::function<std::string(const ReadyOp&)>;

Plan make_plan(int parts, const Streams& stream_of) {
  const auto graph = std::make_shared<const Graph>(parse_graph(kLayer));
  Scheduler s(partition(graph, {split_func({"all_reduce"}, {"network"}), split_func({"softmax"}, {"late"})}),
              "history", [](std::string_view) -> int64_t { return 8; });
  if (parts > 1) s.split(parts);
  for (auto ops = s.get_ready_ops(); !ops.empty(); ops = s.get_ready_ops())
    for (const ReadyOp& op : ops) s.execute(op, {.stream = stream_of(op), .after = {}});
  return *lower(*s.finish());
}

std::string on_network(const ReadyOp& op) { return op.has_tag("network") ? "network" : "compute"; }

Slot& slot_of(Plan& plan, std::string_view value, int part) {
  const auto found = std::find_if(plan.slots.begin(), plan.slots.end(), [&](const Slot& slot) {
    return plan.graph->values[slot.value].name == value && slot.first_part == part;
  });
  REQUIRE(found != plan.slots.end());
  return *found;
}

void check_violation(const Plan& plan, Violation::Kind kind, const std::string& message) {
  const auto violation = verify(plan);
  REQUIRE(violation);
  CAPTURE(violation->message);
  CHECK(kind_name(violation->kind) == kind_name(kind));
  CHECK(violation->message.find(message) != std::string::npos);
}

}  // namespace

TEST_CASE("two parts share one buffer") {
  Plan plan = make_plan(2, on_network);
  REQUIRE(!verify(plan));
  Slot& other = slot_of(plan, "a", 1);
  REQUIRE(other.root == Root::kArena);
  other.index = slot_of(plan, "a", 0).index;
  check_violation(plan, Violation::Kind::kGeometry, "%a on parts [1, 2) in buffer");
}

TEST_CASE("a tensor is freed on one stream while another may still read it") {
  Plan plan = make_plan(
      2, [](const ReadyOp& op) { return op.has_tag("late") ? std::string("side") : on_network(op); });
  REQUIRE(!verify(plan));
  // The softmax makes its result; the matmul on 'compute' reads it, and 'side' frees it at once.
  Stream& side = *std::find_if(plan.streams.begin(), plan.streams.end(),
                               [](const Stream& stream) { return stream.name == "side"; });
  for (Stream& stream : plan.streams)
    std::erase_if(stream.code, [](const Instruction& step) { return step.kind == Instruction::Kind::kFree; });
  const Slot& made = slot_of(plan, "c", 0);
  REQUIRE(made.root == Root::kKernel);
  const auto launch = std::find_if(side.code.begin(), side.code.end(), [](const Instruction& step) {
    return step.kind == Instruction::Kind::kLaunch;
  });
  side.code.insert(launch + 1, {Instruction::Kind::kFree, made.index});
  const auto violation = verify(plan);
  REQUIRE(violation);
  CAPTURE(violation->message);
  CHECK((violation->kind == Violation::Kind::kRace || violation->kind == Violation::Kind::kFreed));
  CHECK(violation->message.find("a free on stream 'side'") != std::string::npos);
}

TEST_CASE("one communicator on two streams") {
  Plan plan = make_plan(2, [](const ReadyOp& op) {
    return op.has_tag("network") ? formatted("network{}", op.part()) : std::string("compute");
  });
  CHECK(!verify(plan));  // an event orders them
  Stream& second = *std::find_if(plan.streams.begin(), plan.streams.end(),
                                 [](const Stream& stream) { return stream.name == "network1"; });
  REQUIRE(std::erase_if(second.code,
                        [](const Instruction& step) { return step.kind == Instruction::Kind::kWait; }) == 1);
  check_violation(plan, Violation::Kind::kOrder, "collectives of group 'tp', and nothing orders them");
}

TEST_CASE("outputs are shifted by padding") {
  Plan plan = make_plan(2, on_network);
  Slot& second = slot_of(plan, "d", 1);
  REQUIRE(second.root == Root::kOutput);
  TensorMeta moved = second.meta;
  moved.offset = moved.offset + 64;  // as if part 0 had been padded to one more row
  second.meta = std::move(moved);
  check_violation(plan, Violation::Kind::kGeometry, "its offset is 64*p0 + 64, not 64*p0");
}

TEST_CASE("ranks split differently") {
  const auto two = std::make_shared<const Plan>(make_plan(2, on_network));
  const auto three = std::make_shared<const Plan>(make_plan(3, on_network));
  CHECK(!verify_ranks(std::vector<PlanPtr>{two, two}));
  const auto violation = verify_ranks(std::vector<PlanPtr>{two, three});
  REQUIRE(violation);
  CAPTURE(violation->message);
  CHECK(violation->kind == Violation::Kind::kRanks);
  CHECK(violation->message.find("parts 0:1 of 2 on rank 0") != std::string::npos);
  CHECK(violation->message.find("parts 0:1 of 3 on rank 1") != std::string::npos);
}
