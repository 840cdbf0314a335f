#pragma once
#include <vector>

#include "dynaflow/plan.h"

namespace dynaflow {

/// A segment run with what it needs, in the order of issue of the plan.
struct IssuedRun {
  SegmentRun run;
  std::vector<RunId> after;  // runs that must be finished first, by plan order, sorted
};

struct Issue {
  std::vector<Stream> streams;  // names and kinds; no code yet
  std::vector<IssuedRun> runs;
};

/// Decides how each stream runs and in which order the host issues. A stream other than the first is
/// asynchronous when it holds collectives only, else a thread. Asynchronous runs are issued as early as what
/// they need allows, so that they are in flight while the host computes; each stream keeps its own order.
Issue issue_order(const Schedule& schedule);

}  // namespace dynaflow
