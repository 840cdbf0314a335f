#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"
#include "dynaflow/fusion.h"
#include "dynaflow/verify.h"

namespace dynaflow::bindings {

namespace {

std::string_view guard_op(Guard::Op op) {
  switch (op) {
    case Guard::Op::kLess:
      return "<";
    case Guard::Op::kLessEqual:
      return "<=";
    case Guard::Op::kEqual:
      break;
  }
  return "==";
}

std::string_view stream_kind(StreamKind kind) {
  switch (kind) {
    case StreamKind::kHost:
      return "host";
    case StreamKind::kAsync:
      return "async";
    case StreamKind::kThread:
      break;
  }
  return "thread";
}

std::vector<nb::tuple> guards(const PlanHandle& handle) {
  std::vector<nb::tuple> result;
  for (const Guard& guard : handle.plan->guards)
    result.push_back(
        nb::make_tuple(guard.left.str(), std::string(guard_op(guard.op)), guard.right.str(), guard.holds));
  return result;
}

std::vector<nb::tuple> streams(const PlanHandle& handle) {
  std::vector<nb::tuple> result;
  for (const Stream& stream : handle.plan->streams)
    result.push_back(nb::make_tuple(stream.name, std::string(stream_kind(stream.kind))));
  return result;
}

std::vector<nb::dict> runs(const PlanHandle& handle) {
  const Plan& plan = *handle.plan;
  std::vector<nb::dict> result;
  for (const Run& run : plan.runs) {
    nb::dict entry;
    std::vector<std::string> ops;
    bool reads_context = false;
    for (const OpLaunch& launch : run.launches) {
      ops.push_back(plan.op(launch.op).name);
      reads_context |= plan.op(launch.op).effects.reads_context;
    }
    entry["name"] = run.name;
    entry["segments"] = run.segments;
    entry["first_part"] = run.first_part;
    entry["last_part"] = run.last_part;
    entry["stream"] = plan.streams[run.stream].name;
    entry["ops"] = ops;
    entry["reads_context"] = reads_context;
    result.push_back(entry);
  }
  return result;
}

std::vector<nb::dict> replacing(const PlanHandle& handle) {
  const Graph& graph = *handle.plan->graph;
  const auto values = [&](const std::vector<ValueId>& ids) {
    std::vector<std::string> names;
    for (ValueId id : ids) names.push_back(graph.values[id].name);
    return names;
  };
  std::vector<nb::dict> result;
  for (const ReplacingOp& replacing : handle.plan->replacing) {
    nb::dict entry;
    std::vector<std::string> ops;
    for (OpId op : replacing.ops) ops.push_back(graph.ops[op].name);
    entry["name"] = replacing.op.name;
    entry["replacement"] = replacing.replacement;
    entry["target"] = replacing.op.target.str();
    entry["out_target"] = replacing.op.out_target.str();
    entry["ops"] = ops;
    entry["inputs"] = values(op_inputs(replacing.op));
    entry["outputs"] = values(replacing.op.outputs);
    entry["tolerance"] = replacing.tolerance;
    entry["compiled"] = is_compiled(replacing.op);
    result.push_back(entry);
  }
  return result;
}

std::map<std::string, GraphHandle> kernels(const PlanHandle& handle) {
  const Plan& plan = *handle.plan;
  std::map<std::string, GraphHandle> result;
  for (const ReplacingOp& replacing : plan.replacing)
    if (is_compiled(replacing.op) && result.count(replacing.op.target) == 0)
      result.emplace(replacing.op.target.str(),
                     GraphHandle{std::make_shared<const Graph>(kernel_graph(*plan.graph, replacing))});
  return result;
}

nb::dict cut_rule(const PlanHandle& handle) {
  const CutRule& cut = handle.plan->cut;
  nb::dict result;
  result["parts"] = cut.parts;
  result["fractions"] = cut.fractions;
  result["sizes"] = cut.sizes;
  result["min_rows"] = cut.min_rows;
  return result;
}

/// One line for each launch of a collective, in issue order: what peers must agree on.
std::vector<std::string> collective_lines(const PlanHandle& handle) {
  std::vector<std::string> result;
  for (const CollectiveCall& call : collective_order(*handle.plan))
    result.push_back(formatted("{} group {}", call.what, call.group));
  return result;
}

nb::object violation_to_python(const std::optional<Violation>& violation) {
  if (!violation) return nb::none();
  nb::dict result;
  result["kind"] = std::string(kind_name(violation->kind));
  result["first"] = violation->first.what;
  result["second"] = violation->second.what;
  result["message"] = violation->message;
  return result;
}

nb::object verify_all(const std::vector<PlanHandle>& handles) {
  std::vector<PlanPtr> plans;
  for (const PlanHandle& handle : handles) plans.push_back(handle.plan);
  return violation_to_python(verify_ranks(plans));
}

}  // namespace

void register_plan(nb::module_& module) {
  nb::class_<PlanHandle>(module, "Plan", "A schedule lowered to flat programs, one per stream. Immutable.")
      .def_prop_ro("text", [](const PlanHandle& self) { return print(*self.plan); })
      .def_prop_ro("graph", [](const PlanHandle& self) { return GraphHandle{self.plan->graph}; })
      .def_prop_ro("strategy", [](const PlanHandle& self) { return self.plan->strategy; })
      .def_prop_ro("guards", guards, "(left, op, right, holds): where another plan would be made.")
      .def_prop_ro("streams", streams, "(name, kind)")
      .def_prop_ro("runs", runs, "In issue order.")
      .def_prop_ro(
          "replacing", replacing,
          "Kernels in place of ops of the graph; a run that launches one has its name among its ops.")
      .def_prop_ro("cut", cut_rule)
      .def_prop_ro("collective_order", collective_lines)
      .def("__str__", [](const PlanHandle& self) { return print(*self.plan); })
      .def(
          "__eq__", [](const PlanHandle& a, const PlanHandle& b) { return *a.plan == *b.plan; },
          nb::is_operator());
  module.def(
      "lower",
      [](const ScheduleHandle& schedule, bool chains, const std::vector<std::string>& refused) {
        return PlanHandle{lower(*schedule.schedule, {chains, {refused.begin(), refused.end()}})};
      },
      nb::arg("schedule"), nb::arg("chains") = false, nb::arg("refused") = std::vector<std::string>(),
      "Decides where values live and where streams wait for each other. `chains`: chains of ops are left to "
      "compiled kernels, but for those whose targets are `refused`.");
  module.def(
      "kernels", kernels, nb::arg("plan"),
      "By target, each once: what the compiled kernels of a plan's chains compute, as graphs of their own.");
  module.def(
      "parse_plan", [](std::string_view source) { return PlanHandle{parse_plan(source)}; },
      nb::arg("source"));
  module.def(
      "verify", [](const PlanHandle& plan) { return violation_to_python(verify(*plan.plan)); },
      nb::arg("plan"),
      "Proves that the plan is right whatever the timing; else a dict with the kind of violation, the two "
      "uses and a message.");
  module.def(
      "check_verified", [](const PlanHandle& plan) { check_verified(*plan.plan); }, nb::arg("plan"),
      "verify() as a check: raises PlanError.");
  module.def("verify_ranks", verify_all, nb::arg("plans"),
             "Whether ranks, each with its plan, would issue the same collectives in the same order.");
}

}  // namespace dynaflow::bindings
