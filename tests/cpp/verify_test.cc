#include "dynaflow/verify.h"

#include <doctest/doctest.h>

#include <map>

#include "executor_plans.h"
#include "mutants.h"
#include "oracle.h"

using namespace dynaflow;        // NOLINT(google-build-using-namespace)
using namespace dynaflow::test;  // NOLINT(google-build-using-namespace)

namespace {

constexpr int64_t kStates = 200000;

/// What check() or verify() says, or empty.
std::string objection(const Plan& plan) {
  try {
    check(plan);
    Binder(std::make_shared<Plan>(plan));
  } catch (const PlanError& error) {
    return error.what();
  }
  const auto violation = verify(plan);
  return violation ? violation->message : "";
}

RandomPlan random_options(uint64_t seed) {
  return {.seed = seed,
          .ops = 3 + static_cast<int>(seed % 5),
          .parts = 1 + static_cast<int>(seed % 3),
          .network = seed % 4 != 0,
          .side = seed % 3 != 0};
}

}  // namespace

TEST_CASE("random plans are right, for the verifier and for the oracle") {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    CAPTURE(seed);
    const PlanPtr plan = make_random_plan(random_options(seed));
    CHECK(objection(*plan) == "");
    const Verdict verdict = Oracle(plan, {7}).explore(kStates);
    CHECK(verdict.harm == "");
  }
}

TEST_CASE("the verifier catches every mutant that the oracle shows to misbehave, and objects to no other") {
  std::map<std::string, int> harmful;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    for (const Mutant& mutant : make_mutants(*make_random_plan(random_options(seed)))) {
      CAPTURE(seed);
      CAPTURE(mutant.kind);
      CAPTURE(mutant.what);
      const std::string said = objection(*mutant.plan);
      Verdict verdict;
      try {
        verdict = Oracle(mutant.plan, {7}).explore(kStates);
      } catch (const PlanError& error) {
        verdict.harm = error.what();
      }
      harmful[mutant.kind] += static_cast<int>(verdict.harmful());
      CAPTURE(verdict.harm);
      CAPTURE(said);
      if (verdict.harmful()) CHECK(said != "");
      // Where bytes lie is proved for all sizes, so a mutant that is right at this one may still be refused.
      const bool about_order = mutant.kind != "offset shifted" && mutant.kind != "lifetime shortened";
      if (about_order && !verdict.harmful() && verdict.complete) CHECK(said == "");
    }
  }
  for (const auto& [kind, count] : harmful) MESSAGE(kind << ": " << count);
}
