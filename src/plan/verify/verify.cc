#include "dynaflow/verify.h"

#include <map>

#include "plan/verify/bytes.h"
#include "plan/verify/order.h"
#include "plan/verify/slots.h"
#include "plan/verify/storages.h"

namespace dynaflow {

namespace {

using Kind = Violation::Kind;

/// Collectives of one group, random draws, and reads of the host's state each follow the one before, whatever
/// the timing; and the reads of one op go through the parts in their order.
class Sequences {
 public:
  Sequences(const Plan& plan, const StepOrder& order) : plan_(plan), order_(order) {}

  std::optional<Violation> run() {
    for (int32_t step = 0; step < static_cast<int32_t>(order_.steps().size()); ++step) {
      if (order_.steps()[static_cast<size_t>(step)].kind != Instruction::Kind::kLaunch) continue;
      const Run& run = plan_.runs[order_.steps()[static_cast<size_t>(step)].id];
      for (size_t i = 0; i < run.launches.size(); ++i) {
        const Op& op = plan_.op(run.launches[i].op);
        const Site site{step, static_cast<int32_t>(i)};
        if (!op.group.empty() && !follows("collectives of group '" + op.group.str() + "'", site))
          return std::move(violation_);
        if (op.effects.random && !follows("random draws", site)) return std::move(violation_);
        if (op.effects.reads_context &&
            (!follows("reads of the host's state", site) || !is_next_part(run.launches[i].op, site)))
          return std::move(violation_);
      }
    }
    return std::nullopt;
  }

 private:
  bool follows(const std::string& kind, const Site& site) {
    const auto [entry, added] = last_.try_emplace(kind, site);
    const Site before = std::exchange(entry->second, site);
    if (added || order_.before(before, site)) return true;
    const RunId first = order_.steps()[static_cast<size_t>(before.step)].id;
    const RunId second = order_.steps()[static_cast<size_t>(site.step)].id;
    violation_ = Violation{Kind::kOrder,
                           {first, plan_.runs[first].name},
                           {second, plan_.runs[second].name},
                           formatted("'{}' and '{}' are {}, and nothing orders them: the second has to "
                                     "wait for the first",
                                     plan_.runs[first].name, plan_.runs[second].name, kind)};
    return false;
  }

  bool is_next_part(OpId op, const Site& site) {
    const RunId id = order_.steps()[static_cast<size_t>(site.step)].id;
    const auto [entry, added] = reader_.try_emplace(op, id);
    const RunId before = std::exchange(entry->second, id);
    if (added || plan_.runs[before].last_part <= plan_.runs[id].first_part) return true;
    violation_ = Violation{Kind::kOrder,
                           {before, plan_.runs[before].name},
                           {id, plan_.runs[id].name},
                           formatted("'{}' reads the host's state for a later part than '{}', which comes "
                                     "after it: what parts share has to change in their order",
                                     plan_.runs[before].name, plan_.runs[id].name)};
    return false;
  }

  const Plan& plan_;
  const StepOrder& order_;
  std::map<std::string, Site> last_;
  std::map<OpId, RunId> reader_;  // of the host's state: its last run
  std::optional<Violation> violation_;
};

std::string shape_on(const Plan& plan, const Run& run, const TensorMeta& meta) {
  std::string shape;
  for (const SizeExpr& size : meta.shape)
    shape += (shape.empty() ? "" : ", ") +
             on_parts(*plan.graph, size, run.first_part, run.last_part, plan.cut.parts).str();
  return formatted("{}[{}]", dtype_name(meta.dtype), shape);
}

std::map<std::string, std::vector<std::string>> by_group(const Plan& plan) {
  std::map<std::string, std::vector<std::string>> found;
  for (CollectiveCall& call : collective_order(plan)) found[call.group].push_back(std::move(call.what));
  return found;
}

}  // namespace

std::string_view kind_name(Kind kind) {
  constexpr std::string_view kNames[] = {"race",     "overwritten", "unwritten", "stale", "freed",
                                         "geometry", "deadlock",    "order",     "ranks"};
  return kNames[static_cast<size_t>(kind)];
}

std::optional<Violation> verify(const Plan& plan) {
  const Storages storages(plan);
  if (auto violation = SlotChecker(plan, storages).run()) return violation;
  const StepOrder order(plan);
  if (order.deadlock()) return order.deadlock();
  if (auto violation = ByteTracker(plan, order, storages).run()) return violation;
  return Sequences(plan, order).run();
}

std::vector<CollectiveCall> collective_order(const Plan& plan) {
  std::vector<CollectiveCall> calls;
  std::vector<int> number(plan.graph->ops.size());  // among the graph's collectives
  for (OpId op = 0, next = 0; op < static_cast<OpId>(plan.graph->ops.size()); ++op)
    if (plan.graph->ops[op].kind == OpKind::kCollective) number[op] = next++;
  for (const Run& run : plan.runs)
    for (const OpLaunch& launch : run.launches) {
      const Op& op = plan.op(launch.op);
      if (op.kind != OpKind::kCollective) continue;
      for (ValueId output : op.outputs)
        calls.push_back({op.group, formatted("{} #{} {} parts {}:{} of {}", op.target, number[launch.op],
                                             shape_on(plan, run, plan.graph->values[output].meta),
                                             run.first_part, run.last_part, plan.cut.parts)});
    }
  return calls;
}

std::optional<Violation> verify_ranks(std::span<const PlanPtr> plans) {
  for (size_t rank = 1; rank < plans.size(); ++rank) {
    auto first = by_group(*plans[0]);
    auto other = by_group(*plans[rank]);
    for (const auto& [group, calls] : other) first.try_emplace(group);
    for (const auto& [group, here] : first) {
      const std::vector<std::string>& there = other[group];
      for (size_t i = 0; i < std::max(here.size(), there.size()); ++i) {
        const std::string a = i < here.size() ? here[i] : "nothing";
        const std::string b = i < there.size() ? there[i] : "nothing";
        if (a == b) continue;
        return Violation{Kind::kRanks,
                         {},
                         {},
                         formatted("collective {} of group '{}' is {} on rank 0, and {} on rank {}", i, group,
                                   a, b, rank)};
      }
    }
  }
  return std::nullopt;
}

void check_verified(const Plan& plan) {
  if (const auto violation = verify(plan))
    throw PlanError(
        formatted("the plan is not safe ({}): {}", kind_name(violation->kind), violation->message));
}

}  // namespace dynaflow
