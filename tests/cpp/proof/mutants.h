#pragma once
#include <string>
#include <vector>

#include "dynaflow/plan.h"

namespace dynaflow::test {

/// A plan with one mistake made in it.
struct Mutant {
  std::string kind;  // "wait deleted"
  std::string what;  // which
  PlanPtr plan;
};

/// Every mutant of a plan of these kinds: a wait, record or free deleted or moved, two runs or two
/// collectives of a stream swapped, a wait doubled (which is right), an offset shifted, a lifetime shortened
/// (a buffer no longer above another).
std::vector<Mutant> make_mutants(const Plan& plan);

}  // namespace dynaflow::test
