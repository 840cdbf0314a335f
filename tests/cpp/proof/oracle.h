#pragma once
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "proof/oracle_model.h"

namespace dynaflow::test {

/// What the oracle saw of a plan.
struct Verdict {
  std::string harm;      // the first misbehaviour, or empty
  int64_t states = 0;    // that were visited
  bool complete = true;  // every interleaving was covered
  bool harmful() const { return !harm.empty(); }
};

/// A reference interpreter of plans that shares nothing with the verifier: bytes at one batch size, and every
/// way in which the streams may interleave.
///
/// Memory holds marks instead of numbers: what a launch writes is a digest of all that it read. What it
/// should have read comes from the graph alone, where each value has memory of its own. A launch begins and
/// ends at different times; between the two it relies on its inputs and owns its outputs.
class Oracle {
 public:
  /// `symbols`: the values of the graph's symbols, in order.
  Oracle(PlanPtr plan, const std::vector<int64_t>& symbols) : model_(std::move(plan), symbols) {}

  /// All interleavings, up to `max_states` states.
  Verdict explore(int64_t max_states);
  /// Adversarial interleavings: each actor as early and as late as it can be, then `runs` more in which the
  /// actors have random priorities that change at random points (Burckhardt et al. 2010).
  Verdict sample(uint64_t seed, int runs);

 private:
  /// One interleaving: always the first of `order` that can go on. `changes`: one in so many steps makes the
  /// order anew; 0: none does.
  void run(std::vector<size_t> order, uint64_t changes, std::mt19937_64& random, Verdict& verdict) const;

  OracleModel model_;
};

}  // namespace dynaflow::test
