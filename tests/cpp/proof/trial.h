#pragma once
#include <functional>
#include <map>
#include <string>

#include "proof/mutants.h"
#include "proof/oracle.h"

namespace dynaflow::test {

/// What check() or verify() says of a plan, or empty.
std::string objection(const PlanPtr& plan);
/// What they say of it where another rank runs `peer`, or empty.
std::string objection(const PlanPtr& plan, const PlanPtr& peer);

/// Mutants of one kind.
struct Tally {
  int mutants = 0;
  int harmful = 0;  // as the oracle shows
  int missed = 0;   // harmful, and nobody objects
  int refused = 0;  // not harmful as far as the oracle can tell, and the verifier objects
};
using Tallies = std::map<std::string, Tally>;

/// How a mutant is tried by the oracle.
struct Trial {
  std::vector<std::vector<int64_t>> sizes;  // of the graph's symbols, in order: it may misbehave at any
  int64_t states = 0;                       // explores up to so many; 0: samples
  uint64_t seed = 0;                        // of samples
  int runs = 8;                             // of samples
  int limit = 0;                            // at most so many mutants of a kind, evenly taken; 0: all
};

/// Tries every mutant of a plan by the oracle and by the verifier. A swap of collectives is harmful by what
/// the peer, which runs the plan itself, sees. Tells `report` each mutant that they disagree on.
void try_mutants(const PlanPtr& plan, const Trial& trial, Tallies& tallies,
                 const std::function<void(const Mutant&, const Verdict&, const std::string& said)>& report);

/// Whether two buffers that begin at the same byte at these sizes are used by different streams.
bool reuses_across_streams(const PlanPtr& plan, const std::vector<int64_t>& symbols);

}  // namespace dynaflow::test
