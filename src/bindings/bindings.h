#pragma once
#include <nanobind/nanobind.h>

#include <functional>
#include <map>

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

/// Values of symbols by name, as Python gives them.
using Sizes = std::map<std::string, int64_t, std::less<>>;
/// Looks a symbol up. Throws ScheduleError for one that has no value.
std::function<int64_t(std::string_view)> value_in(Sizes sizes);

std::string_view form_name(SplitForm form);

/// One launch's signature, with the sizes and strides of its tensors in the call at hand.
struct SignatureHandle {
  Signature signature;
  std::vector<std::pair<std::vector<int64_t>, std::vector<int64_t>>> inputs;
  std::vector<std::pair<std::vector<int64_t>, std::vector<int64_t>>> outputs;
};
void register_replacement(nb::module_& module);

void register_errors(nb::module_& module);
void register_graph(nb::module_& module);
void register_partition(nb::module_& module);
void register_schedule(nb::module_& module);
void register_strategy(nb::module_& module);
void register_plan(nb::module_& module);
void register_explain(nb::module_& module);
void register_watch(nb::module_& module);

}  // namespace dynaflow::bindings
