#include <doctest/doctest.h>

#include <map>
#include <string>

#include "dynaflow/size_expr.h"
#include "random.h"

using dynaflow::GraphError;
using dynaflow::SizeExpr;
using dynaflow::SizeProgram;
using dynaflow::testing::Random;

namespace {

const SizeExpr kS = SizeExpr::symbol("s");
const SizeExpr kT = SizeExpr::symbol("t");

SizeExpr random_expr(Random& random, int depth) {
  if (depth == 0) return random.coin() ? SizeExpr(random.between(-5, 5)) : (random.coin() ? kS : kT);
  const SizeExpr a = random_expr(random, depth - 1);
  const SizeExpr b = random_expr(random, depth - 1);
  switch (random.between(0, 6)) {
    case 0:
      return a + b;
    case 1:
      return a - b;
    case 2:
      return a * b;
    case 3:
      return SizeExpr::max(a, b);
    case 4:
      return SizeExpr::min(a, b);
    case 5:
      return SizeExpr::floordiv(a, SizeExpr(random.between(1, 7)));
    default:
      return SizeExpr::mod(a, SizeExpr(random.between(1, 7)));
  }
}

int64_t evaluate(const SizeExpr& expr, int64_t s, int64_t t) {
  return expr.evaluate([&](std::string_view name) { return name == "s" ? s : t; });
}

}  // namespace

TEST_CASE("the compiled program, the text form and substitution all keep the value") {
  for (uint32_t seed = 0; seed < 2000; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    const SizeExpr expr = random_expr(random, 3);
    CAPTURE(expr.str());
    const int64_t s = random.between(-9, 9);
    const int64_t t = random.between(0, 50);
    const int64_t value = evaluate(expr, s, t);
    SizeProgram program({"s", "t"});
    const int reg = program.add(expr);
    std::vector<int64_t> registers;
    const int64_t symbols[] = {s, t};
    program.evaluate(symbols, registers);
    CHECK(registers[static_cast<size_t>(reg)] == value);
    CHECK(SizeExpr::from_text(expr.to_text()) == expr);
    CHECK(evaluate(expr.substitute("s", kT + SizeExpr(3)), 0, t) == evaluate(expr, t + 3, t));
  }
}

TEST_CASE("equal polynomials compare equal, whatever way they were written") {
  CHECK((kS + kT) * (kS - kT) == kS * kS - kT * kT);
  CHECK(SizeExpr::floordiv(kS * kT * SizeExpr(6), kT * SizeExpr(2)) == kS * SizeExpr(3));
  CHECK(SizeExpr::mod(kS * SizeExpr(4), SizeExpr(2)) == SizeExpr(0));
  CHECK((kS * SizeExpr(64) - SizeExpr(64)).str() == "64*s - 64");
}

TEST_CASE("exact division is refused where a remainder would be left") {
  CHECK(!(kS + SizeExpr(1)).divide_exact(kS));
  CHECK(!(kS * SizeExpr(3)).divide_exact(SizeExpr(2)));
  CHECK(*(kS * kT).divide_exact(kT) == kS);
}

TEST_CASE("overflow and division by zero are errors, not numbers") {
  CHECK_THROWS_AS(evaluate(kS * kS, INT64_MAX, 0), GraphError);
  CHECK_THROWS_AS(evaluate(SizeExpr::floordiv(kS, kT), 1, 0), GraphError);
  CHECK_THROWS_AS(evaluate(SizeExpr::mod(kS, kT), INT64_MIN, -1), GraphError);
  CHECK(evaluate(SizeExpr::mod(kS, kT), 5, INT64_MIN) == INT64_MIN + 5);
  SizeProgram program({"s"});
  program.add(kS * kS);
  std::vector<int64_t> registers;
  const int64_t huge = INT64_MAX;
  CHECK_THROWS_AS(program.evaluate(&huge, registers), GraphError);
}
