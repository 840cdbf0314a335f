#include "oracle.h"

#include <random>
#include <unordered_set>

namespace dynaflow::test {

Verdict Oracle::explore(int64_t max_states) {
  Verdict verdict;
  verdict.harm = model_.misplaced();
  std::vector<State> open;
  std::unordered_set<Mark> seen;
  if (!verdict.harmful()) open.push_back(model_.start());
  while (!open.empty() && !verdict.harmful()) {
    const State state = std::move(open.back());
    open.pop_back();
    if (!seen.insert(state.key()).second) continue;
    if (++verdict.states > max_states) {
      verdict.complete = false;
      break;
    }
    const std::vector<size_t> choices = model_.choices(state);
    if (choices.empty()) verdict.harm = model_.end(state);
    for (size_t actor : choices) {
      State after = state;
      verdict.harm = model_.take(after, actor);
      if (verdict.harmful()) break;
      open.push_back(std::move(after));
    }
  }
  return verdict;
}

Verdict Oracle::sample(uint64_t seed, int runs) {
  Verdict verdict;
  verdict.complete = false;
  verdict.harm = model_.misplaced();
  std::mt19937_64 random(seed);
  for (int run = 0; run < runs && !verdict.harmful(); ++run) {
    State state = model_.start();
    for (auto choices = model_.choices(state); !verdict.harmful(); choices = model_.choices(state)) {
      ++verdict.states;
      if (choices.empty()) {
        verdict.harm = model_.end(state);
        break;
      }
      verdict.harm = model_.take(state, choices[random() % choices.size()]);
    }
  }
  return verdict;
}

}  // namespace dynaflow::test
