#include "dynaflow/explain.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"

namespace dynaflow::bindings {

namespace {

std::vector<nb::dict> explain_plan(const PlanHandle& handle) {
  std::vector<nb::dict> result;
  for (const CollectiveReport& report : explain(*handle.plan)) {
    nb::dict entry;
    entry["run"] = report.run;
    entry["name"] = report.name;
    entry["alone"] = report.alone;
    entry["part"] = report.part;
    entry["bytes_expr"] = report.bytes.str();
    entry["overlaps"] = report.overlaps;
    entry["reason"] = report.reason;
    result.push_back(entry);
  }
  return result;
}

}  // namespace

void register_explain(nb::module_& module) {
  module.def("explain", explain_plan, nb::arg("plan"),
             "For each collective, in issue order: what the plan lets go on meanwhile, or why nothing does.");
}

}  // namespace dynaflow::bindings
