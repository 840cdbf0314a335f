#include "dynaflow/explain.h"

#include <algorithm>

namespace dynaflow {

namespace {

bool is_collective(const Plan& plan, const Run& run) {
  return !run.launches.empty() &&
         std::all_of(run.launches.begin(), run.launches.end(),
                     [&](const OpLaunch& launch) { return plan.op(launch.op).kind == OpKind::kCollective; });
}

SizeExpr input_bytes(const Plan& plan, const OpLaunch& launch) {
  SizeExpr total;
  for (SlotId id : launch.inputs) {
    const Slot& slot = plan.slots[static_cast<size_t>(id)];
    SizeExpr bytes = item_size(plan.graph->values[slot.value].meta->dtype);
    for (const SizeExpr& size : slot.meta->shape) bytes = bytes * size;
    total = total + bytes;
  }
  return total;
}

/// Runs issued after `run` that start before it surely ends; and, on other threads, runs free of any order.
std::vector<std::string> free_runs(const Plan& plan, const HappensBefore& order, RunId run) {
  std::vector<std::string> names;
  for (RunId other = 0; other < static_cast<RunId>(plan.runs.size()); ++other) {
    const bool same_stream = plan.runs[other].stream == plan.runs[run].stream;
    if (other == run || same_stream || plan.runs[other].launches.empty()) continue;
    if (!order.before(run, other) && !order.before(other, run) && !is_collective(plan, plan.runs[other]))
      names.push_back(plan.runs[other].name);
  }
  return names;
}

std::string why_exposed(const Plan& plan, const HappensBefore& order, RunId run) {
  const Stream& stream = plan.streams[static_cast<size_t>(plan.runs[run].stream)];
  if (stream.kind == StreamKind::kHost)
    return formatted("same stream: it is issued on '{}', where nothing else can run meanwhile", stream.name);
  for (RunId other = run + 1; other < static_cast<RunId>(plan.runs.size()); ++other) {
    if (!order.before(run, other)) continue;
    const std::string& waiter = plan.runs[other].name;
    if (plan.cut.parts == 1)
      return formatted("data dependency: the batch is not split, and '{}', next in order, reads it", waiter);
    return formatted("data dependency: '{}' reads it, and no independent work is left", waiter);
  }
  return "no independent work is left: it is the end of the plan";
}

/// A collective among other work of one run has no choice: the run's ops go one after the other.
std::string why_inside(const Plan& plan, const Run& run) {
  return formatted("same stream: it is one step of '{}' on '{}'; cut it out to schedule it on its own",
                   run.name, plan.streams[static_cast<size_t>(run.stream)].name);
}

}  // namespace

std::vector<CollectiveReport> explain(const Plan& plan) {
  const HappensBefore order = happens_before(plan);
  std::vector<CollectiveReport> reports;
  for (RunId id = 0; id < static_cast<RunId>(plan.runs.size()); ++id) {
    const Run& run = plan.runs[id];
    const bool alone = is_collective(plan, run);
    for (const OpLaunch& launch : run.launches) {
      const Op& op = plan.op(launch.op);
      if (op.kind != OpKind::kCollective) continue;
      CollectiveReport report{id, run.name, alone, run.first_part, input_bytes(plan, launch), {}, ""};
      if (alone) {
        report.overlaps = free_runs(plan, order, id);
        if (report.overlaps.empty()) report.reason = why_exposed(plan, order, id);
      } else {
        report.name =
            formatted("{}.{}", op.module.empty() ? run.name : op.module.str(), short_target(op.target));
        report.reason = why_inside(plan, run);
      }
      reports.push_back(std::move(report));
    }
  }
  return reports;
}

}  // namespace dynaflow
