#pragma once
#include <nanobind/nanobind.h>

#include "dynaflow/plan.h"
#include "dynaflow/strategy.h"

namespace dynaflow::bindings {

namespace nb = nanobind;

/// Python's hold on the core's immutable values.
struct GraphHandle {
  GraphPtr graph;
};
struct PartitionHandle {
  PartitionPtr partition;
};
struct ScheduleHandle {
  SchedulePtr schedule;
};
struct PlanHandle {
  PlanPtr plan;
};
struct StrategyHandle {
  StrategyPtr strategy;
};
/// A ReadyOp points into its partition, which lives as long as Python knows the op.
struct OpHandle {
  ReadyOp op;
  PartitionPtr partition;
};

/// The scheduler with the partition that its ops point into.
struct SchedulerHandle {
  PartitionPtr partition;
  Scheduler scheduler;
};

std::string_view form_name(SplitForm form);

void register_errors(nb::module_& module);
void register_graph(nb::module_& module);
void register_partition(nb::module_& module);
void register_schedule(nb::module_& module);
void register_strategy(nb::module_& module);
void register_plan(nb::module_& module);
void register_explain(nb::module_& module);

}  // namespace dynaflow::bindings
