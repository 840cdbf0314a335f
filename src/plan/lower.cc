#include "dynaflow/plan.h"
#include "plan/events.h"
#include "plan/issue_order.h"
#include "plan/memory.h"
#include "plan/storage.h"

namespace dynaflow {

std::string part_symbol(int part) { return formatted("p{}", part); }

SizeExpr on_parts(const Graph& graph, const SizeExpr& expr, int first_part, int last_part, int parts) {
  const bool all = first_part == 0 && last_part == parts;
  if (all || graph.batch_symbol.empty() || !expr.depends_on(graph.batch_symbol)) return expr;
  SizeExpr rows;
  for (int part = first_part; part < last_part; ++part) rows = rows + SizeExpr::symbol(part_symbol(part));
  return expr.substitute(graph.batch_symbol, rows);
}

PlanPtr lower(const Schedule& schedule) {
  check(schedule);
  auto plan = std::make_shared<Plan>();
  plan->graph = schedule.partition->graph;
  plan->strategy = schedule.strategy;
  plan->cut = schedule.cut;
  plan->guards = schedule.guards;
  Issue issue = issue_order(schedule);
  plan->streams = issue.streams;
  StoragePlanner storage(schedule, issue, *plan);
  storage.run();
  place_events(issue, *plan);
  const HappensBefore order = happens_before(*plan);
  place_buffers(storage, order, *plan);
  place_frees(storage, order, *plan);
  check(*plan);
  return plan;
}

}  // namespace dynaflow
