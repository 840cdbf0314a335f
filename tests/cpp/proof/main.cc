/// `dynaflow_mutants random COUNT SEED`: so many random plans, half of them with memory that streams hand on,
/// explored by the oracle and verified. `dynaflow_mutants plan FILE SEED RUNS LIMIT SIZE...`: mutants of a
/// plan, at most LIMIT of a kind, at these sizes of its symbols. Prints a line of counts for each kind; fails
/// where oracle and verifier disagree on a plan that is harmful, or on a random one.
#include <cstdio>
#include <fstream>
#include <sstream>

#include "executor_plans.h"
#include "proof/trial.h"

namespace dynaflow::test {
namespace {

constexpr int64_t kStates = 100000;

void print_line(const std::string& line) { std::puts(line.c_str()); }

int try_random_plans(int count, uint64_t seed) {
  int reusing = 0;
  int complete = 0;
  int wrong = 0;
  for (int made = 0; made < count; ++seed) {
    const PlanPtr plan = make_random_plan({.seed = seed,
                                           .ops = 3 + static_cast<int>(seed % 6),
                                           .parts = 1 + static_cast<int>(seed % 3),
                                           .network = seed % 4 != 0,
                                           .side = seed % 3 != 0});
    const bool reuses = reuses_across_streams(plan, {7});
    if (!reuses && made - reusing >= count / 2) continue;
    ++made;
    reusing += static_cast<int>(reuses);
    const Verdict verdict = Oracle(plan, {7}).explore(kStates);
    complete += static_cast<int>(verdict.complete);
    const std::string said = objection(plan);
    if (said.empty() && !verdict.harmful()) continue;
    ++wrong;
    print_line(formatted("seed {}: oracle '{}', verifier '{}'", seed, verdict.harm, said));
  }
  print_line(formatted("{{\"plans\": {}, \"reusing\": {}, \"complete\": {}, \"wrong\": {}}}", count, reusing,
                       complete, wrong));
  return wrong == 0 ? 0 : 1;
}

int try_plan(const char* file, const Trial& trial) {
  std::stringstream text;
  text << std::ifstream(file).rdbuf();
  const PlanPtr plan = parse_plan(text.str());
  const std::string said = objection(plan);
  const Verdict verdict = Oracle(plan, trial.sizes[0]).sample(trial.seed, trial.runs);
  if (!said.empty() || verdict.harmful()) {
    print_line(formatted("the plan itself: oracle '{}', verifier '{}'", verdict.harm, said));
    return 1;
  }
  Tallies tallies;
  try_mutants(plan, trial, tallies,
              [](const Mutant& mutant, const Verdict& found, const std::string& objected) {
                if (found.harmful() || mutant.kind.starts_with("wait"))
                  std::fputs(formatted("{}, {}: oracle '{}', verifier '{}'\n", mutant.kind, mutant.what,
                                       found.harm, objected)
                                 .c_str(),
                             stderr);
              });
  int missed = 0;
  for (const auto& [kind, tally] : tallies) {
    missed += tally.missed;
    print_line(
        formatted("{{\"kind\": \"{}\", \"mutants\": {}, \"harmful\": {}, \"missed\": {}, \"refused\": {}}}",
                  kind, tally.mutants, tally.harmful, tally.missed, tally.refused));
  }
  return missed == 0 ? 0 : 1;
}

int run(int count, char** words) {
  const std::string mode = count > 1 ? words[1] : "";
  if (mode == "random" && count == 4) return try_random_plans(std::stoi(words[2]), std::stoull(words[3]));
  if (mode == "plan" && count >= 6) {
    Trial trial{.sizes = {{}},
                .states = 0,
                .seed = std::stoull(words[3]),
                .runs = std::stoi(words[4]),
                .limit = std::stoi(words[5])};
    for (int i = 6; i < count; ++i) trial.sizes[0].push_back(std::stoll(words[i]));
    return try_plan(words[2], trial);
  }
  std::fputs("usage: dynaflow_mutants random COUNT SEED | plan FILE SEED RUNS LIMIT SIZE...\n", stderr);
  return 2;
}

}  // namespace
}  // namespace dynaflow::test

int main(int count, char** words) { return dynaflow::test::run(count, words); }
