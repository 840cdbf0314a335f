#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "dynaflow/schedule.h"
#include "dynaflow/strategy.h"
#include "random.h"

using namespace dynaflow;
using dynaflow::testing::Random;

namespace {

PartitionPtr one_op() {
  return partition(std::make_shared<const Graph>(parse_graph(R"(graph: g {batch=s0, tokens=s0*16}
  %s0 = symbol() {min=2, hint=8}
  %x = input(0, tensor(float32, [s0, 64]))
  %a = aten.relu.default(%x) {out=[tensor(float32, [s0, 64])], out_target="aten.relu.out"}
  output(%a)
)")),
                   {});
}

StrategyPtr nanoflow(int64_t parts, int64_t min_tokens) {
  return make_nanoflow(
      {{"parts", text::Value::integral(parts)}, {"min_tokens", text::Value::integral(min_tokens)}});
}

}  // namespace

TEST_CASE("a cut sums to the batch, and no part is below the smallest legal one") {
  for (uint32_t seed = 0; seed < 2000; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    CutRule rule;
    rule.min_rows = random.between(1, 3);
    rule.parts = static_cast<int>(random.between(1, 6));
    if (random.coin()) {
      rule.kind = CutRule::Kind::kFractions;
      for (int i = 0; i < rule.parts; ++i)
        rule.fractions.push_back(static_cast<double>(random.between(1, 100)));
      const double sum = std::accumulate(rule.fractions.begin(), rule.fractions.end(), 0.0);
      for (double& fraction : rule.fractions) fraction /= sum;
    }
    const int64_t rows = random.between(1, 40);
    if (feasible_parts(rule, rows) < rule.parts) {
      CHECK_THROWS_AS(cut(rule, rows), PlanError);
      continue;
    }
    const std::vector<int64_t> sizes = cut(rule, rows);
    CHECK(static_cast<int>(sizes.size()) == rule.parts);
    CHECK(std::accumulate(sizes.begin(), sizes.end(), int64_t{0}) == rows);
    if (rule.parts > 1) CHECK(*std::min_element(sizes.begin(), sizes.end()) >= rule.min_rows);
  }
}

TEST_CASE("a comparison cuts the bucket where the strategy made it") {
  const PartitionPtr graph = one_op();
  const auto tokens_of = [](int64_t rows) { return [rows](std::string_view) { return rows; }; };
  const SchedulePtr small = make_schedule(graph, *nanoflow(2, 512), tokens_of(31));
  const SchedulePtr large = make_schedule(graph, *nanoflow(2, 512), tokens_of(32));
  CHECK(small->cut.parts == 1);
  CHECK(large->cut.parts == 2);
  const auto accepts = [&](const SchedulePtr& schedule, int64_t rows) {
    return std::all_of(schedule->guards.begin(), schedule->guards.end(),
                       [&](const Guard& guard) { return holds(guard, tokens_of(rows)); });
  };
  CHECK(accepts(small, 2));
  CHECK(!accepts(small, 32));
  CHECK(accepts(large, 1000));
  CHECK(!accepts(large, 31));
}

TEST_CASE("named buckets give plain numbers and record their borders") {
  Scheduler s(one_op(), "mine", [](std::string_view) { return int64_t{10}; });
  const std::vector<int64_t> borders = {4, 8, 16};
  CHECK(s.bucket(s.batch().size, borders) == 2);
  s.run_sequentially();
  CHECK(s.finish()->guards.size() == 3);
}

TEST_CASE("splitting after the first execute is refused") {
  Scheduler s(one_op(), "mine", [](std::string_view) { return int64_t{10}; });
  s.execute(s.get_ready_ops().at(0));
  CHECK_THROWS_AS(s.split(2), ScheduleError);
}

TEST_CASE("fractions that do not sum to one, and no parts at all, are refused") {
  Scheduler s(one_op(), "mine", [](std::string_view) { return int64_t{10}; });
  CHECK_THROWS_AS(s.split(std::vector<double>{0.5, 0.4}), ScheduleError);
  CHECK_THROWS_AS(s.split(0), ScheduleError);
}
