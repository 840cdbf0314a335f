#include "dynaflow/explain.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"

namespace dynaflow::bindings {

namespace {

std::vector<nb::dict> explain_plan(const PlanHandle& handle, const Sizes& sizes) {
  std::vector<nb::dict> result;
  for (const CollectiveReport& report : explain(*handle.plan)) {
    nb::dict entry;
    entry["run"] = report.run;
    entry["name"] = report.name;
    entry["alone"] = report.alone;
    entry["part"] = report.part;
    entry["bytes"] = report.bytes.evaluate(value_in(sizes));
    entry["overlaps"] = report.overlaps;
    entry["reason"] = report.reason;
    result.push_back(entry);
  }
  return result;
}

}  // namespace

void register_explain(nb::module_& module) {
  module.def(
      "explain", explain_plan, nb::arg("plan"), nb::arg("sizes"),
      "For each collective, in issue order: what the plan lets go on meanwhile, or why nothing does.\n\n"
      "`sizes`: values of the plan's symbols, for which bytes are given. Raises ScheduleError for a missing "
      "one.");
}

}  // namespace dynaflow::bindings
