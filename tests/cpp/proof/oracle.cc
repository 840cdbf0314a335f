#include "proof/oracle.h"

#include <algorithm>
#include <numeric>
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

void Oracle::run(std::vector<size_t> order, uint64_t changes, std::mt19937_64& random,
                 Verdict& verdict) const {
  State state = model_.start();
  while (!verdict.harmful()) {
    ++verdict.states;
    if (changes != 0 && random() % changes == 0) std::shuffle(order.begin(), order.end(), random);
    const auto actor =
        std::find_if(order.begin(), order.end(), [&](size_t id) { return model_.enabled(state, id); });
    if (actor == order.end()) {
      verdict.harm = model_.end(state);
      return;
    }
    verdict.harm = model_.take(state, *actor);
  }
}

Verdict Oracle::sample(uint64_t seed, int runs) {
  Verdict verdict;
  verdict.complete = false;
  verdict.harm = model_.misplaced();
  std::mt19937_64 random(seed);
  std::vector<size_t> order(model_.actors());
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t actor = 0; actor < order.size() && !verdict.harmful(); ++actor) {
    run(order, 0, random, verdict);
    if (!verdict.harmful()) run({order.rbegin(), order.rend()}, 0, random, verdict);
    std::rotate(order.begin(), order.begin() + 1, order.end());
  }
  for (int i = 0; i < runs && !verdict.harmful(); ++i) {
    std::shuffle(order.begin(), order.end(), random);
    run(order, 4 + random() % 200, random, verdict);
  }
  return verdict;
}

}  // namespace dynaflow::test
