#include "plan/launches.h"

#include <map>
#include <optional>
#include <set>

namespace dynaflow {

namespace {

/// Makes the ops that replace others, each once for all parts.
class Replacer {
 public:
  Replacer(const Schedule& schedule, Plan& plan)
      : schedule_(schedule), plan_(plan), regions_(*schedule.partition) {
    for (const Op& op : plan.graph->ops) names_.insert(op.name);
  }

  OpId op_of(const SegmentRun& run) {
    const auto next = static_cast<OpId>(plan_.graph->ops.size() + plan_.replacing.size());
    const auto [entry, added] = made_.try_emplace({run.replacement, run.segments}, next);
    if (!added) return entry->second;
    const Replacement& replacement = schedule_.replacements[static_cast<size_t>(run.replacement)];
    const Region region = regions_.of(run.segments);
    ReplacingOp made{replacing_op(replacement, region), region.ops, replacement.name, replacement.tolerance};
    const std::string name = formatted("{}:{}", replacement.name, plan_.graph->ops[region.ops.back()].name);
    made.op.name = name;
    for (int copies = 2; !names_.insert(made.op.name).second; ++copies)
      made.op.name = formatted("{}#{}", name, copies);
    plan_.replacing.push_back(std::move(made));
    return next;
  }

 private:
  const Schedule& schedule_;
  Plan& plan_;
  Regions regions_;
  std::set<std::string> names_;
  std::map<std::pair<int, std::vector<SegmentId>>, OpId> made_;
};

}  // namespace

std::vector<std::vector<OpId>> choose_launches(const Schedule& schedule, const Issue& issue, Plan& plan) {
  std::optional<Replacer> replacer;
  std::vector<std::vector<OpId>> launches;
  for (const IssuedRun& issued : issue.runs) {
    std::vector<OpId>& ops = launches.emplace_back();
    if (issued.run.replacement != kNoId) {
      if (!replacer) replacer.emplace(schedule, plan);
      ops.push_back(replacer->op_of(issued.run));
      continue;
    }
    for (SegmentId segment : issued.run.segments) {
      const std::vector<OpId>& own = schedule.partition->segments[segment].ops;
      ops.insert(ops.end(), own.begin(), own.end());
    }
  }
  return launches;
}

}  // namespace dynaflow
