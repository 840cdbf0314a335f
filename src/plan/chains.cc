#include "plan/chains.h"

#include <algorithm>

#include "dynaflow/fusion.h"
#include "partition/dependencies.h"

namespace dynaflow {

namespace {

constexpr size_t kFarthest = 512;  // units apart, that two ops of a chain may be: no value waits long for it

/// The units of one run while they grow, always in an order in which each comes after what it needs.
class Units {
 public:
  /// `ops`: in program order; each is a unit of its own, with its number.
  Units(const std::vector<OpId>& ops, const std::vector<std::vector<OpId>>& needs)
      : needs_(needs),
        first_(ops.front()),
        place_of_(static_cast<size_t>(ops.back() - first_) + 1, kNowhere) {
    for (size_t place = 0; place < ops.size(); ++place) {
      place_of_[slot(ops[place])] = place;
      units_.push_back({ops[place]});
    }
  }

  /// Makes the units of two ops one, unless something else lies between them or there would be too many.
  void merge(OpId early, OpId late) {
    const size_t from = place_of(early);
    const size_t to = place_of(late);
    if (from == kNowhere || from == to) return;
    if (from > to) return merge(late, early);
    if (to - from > kFarthest || units_[from].size() + units_[to].size() > kLongestChain) return;
    std::vector<bool> after(to - from + 1, false);  // by place from `from`: it needs the unit there
    after[0] = true;
    for (size_t place = from + 1; place < to; ++place)
      after[place - from] = needs_any(place, from, to, after);
    after[0] = false;  // the last may need the first itself
    if (needs_any(to, from, to, after)) return;
    rearrange(from, to, after);
  }

  std::vector<std::vector<OpId>> take() && {
    std::erase_if(units_, [](const std::vector<OpId>& unit) { return unit.empty(); });
    return std::move(units_);
  }

 private:
  static constexpr size_t kNowhere = SIZE_MAX;

  size_t slot(OpId op) const { return static_cast<size_t>(op - first_); }
  /// Where the unit of an op is, if the run has the op.
  size_t place_of(OpId op) const {
    return op < first_ || slot(op) >= place_of_.size() ? kNowhere : place_of_[slot(op)];
  }

  bool needs_any(size_t place, size_t from, size_t to, const std::vector<bool>& marked) const {
    for (OpId op : units_[place])
      for (OpId need : needs_[op])
        if (const size_t at = place_of(need); at != kNowhere && at >= from && at < to && marked[at - from])
          return true;
    return false;
  }

  /// Puts the units of places `from` and `to` together: what needs the first comes after both, the rest
  /// before.
  void rearrange(size_t from, size_t to, const std::vector<bool>& after) {
    std::vector<OpId> both = std::move(units_[from]);
    both.insert(both.end(), units_[to].begin(), units_[to].end());
    std::sort(both.begin(), both.end());
    std::vector<std::vector<OpId>> order;
    for (size_t place = from + 1; place < to; ++place)
      if (!after[place - from]) order.push_back(std::move(units_[place]));
    order.push_back(std::move(both));
    for (size_t place = from + 1; place < to; ++place)
      if (after[place - from]) order.push_back(std::move(units_[place]));
    units_[from].clear();  // a gap, so that places beyond stay as they are
    for (size_t i = 0; i < order.size(); ++i) {
      for (OpId op : order[i]) place_of_[slot(op)] = from + 1 + i;
      units_[from + 1 + i] = std::move(order[i]);
    }
  }

  const std::vector<std::vector<OpId>>& needs_;
  OpId first_;
  std::vector<size_t> place_of_;          // by op, from the run's first: its unit's place, or kNowhere
  std::vector<std::vector<OpId>> units_;  // by place; empty where there was one
};

/// A kernel is compiled for the strides that it will find: those of a part's rows must be the whole batch's.
bool lies_alike_in_parts(const Graph& graph, const Op& op) {
  const auto moves = [&](ValueId value) {
    const std::vector<SizeExpr>& strides = graph.values[value].meta->strides;
    return std::any_of(strides.begin(), strides.end(),
                       [&](const SizeExpr& stride) { return stride.depends_on(graph.batch_symbol); });
  };
  const std::vector<ValueId> inputs = op_inputs(op);
  return std::none_of(inputs.begin(), inputs.end(), moves) &&
         std::none_of(op.outputs.begin(), op.outputs.end(), moves);
}

}  // namespace

ChainFinder::ChainFinder(const Partition& partition)
    : graph_(*partition.graph), needs_(dependencies(graph_)), fusible_(fusible_ops(graph_)) {
  for (size_t id = 0; id < graph_.ops.size(); ++id)
    if (fusible_[id] && !lies_alike_in_parts(graph_, graph_.ops[id])) fusible_[id] = false;
}

std::vector<std::vector<OpId>> ChainFinder::units(std::vector<OpId> ops) const {
  if (ops.empty()) return {};
  std::sort(ops.begin(), ops.end());
  Units units(ops, needs_);
  for (OpId op : ops) {
    if (!fusible_[op]) continue;
    for (OpId need : needs_[op])
      if (fusible_[need]) units.merge(need, op);
  }
  return std::move(units).take();
}

}  // namespace dynaflow
