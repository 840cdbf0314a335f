#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "dynaflow/schedule.h"

namespace dynaflow {

/// A program that annotates a graph and writes its schedule. Stateless between calls; called when a plan is
/// made, never in a step.
class Strategy {
 public:
  virtual ~Strategy() = default;
  virtual std::string name() const = 0;
  virtual std::vector<Annotation> partition() const = 0;
  virtual void schedule(Scheduler& scheduler, const Batch& batch) const = 0;
};
using StrategyPtr = std::shared_ptr<const Strategy>;

/// Options of a built-in strategy by name; unknown ones are an error that lists the valid ones.
using StrategyOptions = std::map<std::string, text::Value>;
using StrategyFactory = std::function<StrategyPtr(const StrategyOptions&)>;

/// Strategies by name. Filled by explicit calls; a plain value, not a singleton.
class StrategyRegistry {
 public:
  void add(std::string name, StrategyFactory factory);
  /// Throws ScheduleError listing the names when there is none of that name.
  StrategyPtr make(const std::string& name, const StrategyOptions& options = {}) const;
  std::vector<std::string> names() const;

 private:
  std::map<std::string, StrategyFactory> factories_;
};

/// Runs everything once, in program order, on one stream.
StrategyPtr make_sequential(const StrategyOptions& options);
/// Splits the batch and lets each part's collectives run under the others' compute.
StrategyPtr make_nanoflow(const StrategyOptions& options);
/// Registers every built-in strategy.
void register_builtin_strategies(StrategyRegistry& registry);

/// Throws ScheduleError naming the options that are not in `known`, and listing those that are.
void check_options(const std::string& strategy, const StrategyOptions& options,
                   const std::vector<std::string>& known);

/// partition → schedule for one batch: the bucket's schedule.
SchedulePtr make_schedule(PartitionPtr partition, const Strategy& strategy,
                          std::function<int64_t(std::string_view)> value_of);

}  // namespace dynaflow
