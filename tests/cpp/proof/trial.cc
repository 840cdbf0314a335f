#include "proof/trial.h"

#include <set>
#include <tuple>

#include "dynaflow/verify.h"

namespace dynaflow::test {

namespace {

/// What the peers of a rank see: each collective by its place in the graph and its parts.
std::vector<std::tuple<OpId, int, int>> collectives(const Plan& plan) {
  std::vector<std::tuple<OpId, int, int>> result;
  for (const Run& run : plan.runs)
    for (const OpLaunch& launch : run.launches)
      if (plan.op(launch.op).kind == OpKind::kCollective)
        result.emplace_back(launch.op, run.first_part, run.last_part);
  return result;
}

Verdict judge(const Mutant& mutant, const PlanPtr& original, const Trial& trial) {
  Verdict verdict;
  if (collectives(*mutant.plan) != collectives(*original)) {
    verdict.harm = "another rank issues other collectives";
    return verdict;
  }
  bool complete = true;
  for (const std::vector<int64_t>& symbols : trial.sizes) {
    try {
      Oracle oracle(mutant.plan, symbols);
      verdict = trial.states > 0 ? oracle.explore(trial.states) : oracle.sample(trial.seed, trial.runs);
    } catch (const PlanError& error) {
      verdict.harm = error.what();
    }
    if (verdict.harmful()) break;
    complete &= verdict.complete;
  }
  verdict.complete = complete;
  return verdict;
}

std::vector<Mutant> some_of(std::vector<Mutant> mutants, int limit) {
  std::map<std::string, int> total;
  for (const Mutant& mutant : mutants) ++total[mutant.kind];
  std::map<std::string, int> seen;
  if (limit > 0)
    std::erase_if(mutants, [&](const Mutant& mutant) {
      const int count = total[mutant.kind];
      const int at = seen[mutant.kind]++;
      return count > limit && at * limit / count == (at + 1) * limit / count;
    });
  return mutants;
}

}  // namespace

std::string objection(const PlanPtr& plan) {
  try {
    check(*plan);
    Binder{plan};
    check_verified(*plan);
  } catch (const PlanError& error) {
    return error.what();
  }
  return "";
}

std::string objection(const PlanPtr& plan, const PlanPtr& peer) {
  if (std::string own = objection(plan); !own.empty()) return own;
  const auto violation = verify_ranks(std::vector<PlanPtr>{peer, plan});
  return violation ? violation->message : "";
}

void try_mutants(const PlanPtr& plan, const Trial& trial, Tallies& tallies,
                 const std::function<void(const Mutant&, const Verdict&, const std::string& said)>& report) {
  for (const Mutant& mutant : some_of(make_mutants(*plan), trial.limit)) {
    const Verdict verdict = judge(mutant, plan, trial);
    const std::string said = objection(mutant.plan, plan);
    Tally& tally = tallies[mutant.kind];
    ++tally.mutants;
    tally.harmful += static_cast<int>(verdict.harmful());
    tally.missed += static_cast<int>(verdict.harmful() && said.empty());
    tally.refused += static_cast<int>(!verdict.harmful() && !said.empty());
    if (verdict.harmful() == said.empty()) report(mutant, verdict, said);
  }
}

bool reuses_across_streams(const PlanPtr& plan, const std::vector<int64_t>& symbols) {
  Binding binding;
  const Binder binder(plan);
  binder.bind(symbols, binding);
  std::vector<std::set<StreamId>> streams(plan->buffers.size());
  for (const Run& run : plan->runs)
    for (const OpLaunch& launch : run.launches)
      for (const std::vector<SlotId>* slots : {&launch.inputs, &launch.outputs})
        for (SlotId slot : *slots)
          if (slot != kNoId && plan->slots[slot].root == Root::kArena)
            streams[static_cast<size_t>(plan->slots[slot].index)].insert(run.stream);
  for (size_t a = 0; a < streams.size(); ++a)
    for (size_t b = 0; b < a; ++b)
      if (binding.buffer_offsets[a] == binding.buffer_offsets[b] && !streams[a].empty() &&
          !streams[b].empty() && streams[a] != streams[b])
        return true;
  return false;
}

}  // namespace dynaflow::test
