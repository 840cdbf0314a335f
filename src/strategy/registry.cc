#include <fmt/ranges.h>

#include <algorithm>

#include "dynaflow/strategy.h"

namespace dynaflow {

void StrategyRegistry::add(std::string name, StrategyFactory factory) {
  factories_[std::move(name)] = std::move(factory);
}

StrategyPtr StrategyRegistry::make(const std::string& name, const StrategyOptions& options) const {
  const auto found = factories_.find(name);
  if (found == factories_.end())
    throw ScheduleError(formatted("unknown strategy '{}'; known: {}", name, fmt::join(names(), ", ")));
  return found->second(options);
}

std::vector<std::string> StrategyRegistry::names() const {
  std::vector<std::string> result;
  for (const auto& [name, factory] : factories_) result.push_back(name);
  return result;
}

void check_options(const std::string& strategy, const StrategyOptions& options,
                   const std::vector<std::string>& known) {
  for (const auto& [key, value] : options)
    if (std::find(known.begin(), known.end(), key) == known.end())
      throw ScheduleError(formatted("strategy '{}' has no option '{}'; it has: {}", strategy, key,
                                    known.empty() ? "none" : formatted("{}", fmt::join(known, ", "))));
}

void register_builtin_strategies(StrategyRegistry& registry) {
  registry.add("sequential", make_sequential);
  registry.add("nanoflow", make_nanoflow);
}

SchedulePtr make_schedule(PartitionPtr partition, const Strategy& strategy,
                          std::function<int64_t(std::string_view)> value_of) {
  Scheduler scheduler(std::move(partition), strategy.name(), std::move(value_of));
  strategy.schedule(scheduler, scheduler.batch());
  return scheduler.finish();
}

}  // namespace dynaflow
