#include "dynaflow/fusion.h"
#include "plan/events.h"
#include "plan/issue_order.h"
#include "plan/launches.h"
#include "plan/memory.h"
#include "plan/storage.h"

namespace dynaflow {

PlanPtr lower(const Schedule& schedule) { return lower(schedule, {}); }

PlanPtr lower(const Schedule& schedule, const Fusion& fusion) {
  check(schedule);
  auto plan = std::make_shared<Plan>();
  plan->graph = schedule.partition->graph;
  plan->strategy = schedule.strategy;
  plan->cut = schedule.cut;
  plan->guards = schedule.guards;
  Issue issue = issue_order(schedule);
  plan->streams = issue.streams;
  StoragePlanner storage(schedule, issue, choose_launches(schedule, issue, fusion, *plan), *plan);
  storage.run();
  place_events(issue, *plan);
  const HappensBefore order = happens_before(*plan);
  place_buffers(storage, order, *plan);
  place_frees(storage, order, *plan);
  check(*plan);
  return plan;
}

}  // namespace dynaflow
