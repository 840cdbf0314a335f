#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"

namespace dynaflow::bindings {

namespace {

std::vector<std::string> names(const Graph& graph, const std::vector<ValueId>& ids) {
  std::vector<std::string> result;
  for (ValueId id : ids) result.push_back(graph.values[id].name);
  return result;
}

std::vector<std::string> texts(const std::vector<SizeExpr>& sizes) {
  std::vector<std::string> result;
  for (const SizeExpr& size : sizes) result.push_back(size.str());
  return result;
}

/// None, bool, int, float, str and lists as they are; what only the graph knows as a tuple whose first is
/// "value", "size" (an expression) or the kind of a named constant.
nb::object arg_to_python(const Graph& graph, const Arg& arg) {
  struct Visitor {
    const Graph& graph;
    nb::object operator()(std::monostate) const { return nb::none(); }
    nb::object operator()(bool value) const { return nb::bool_(value); }
    nb::object operator()(const SizeExpr& value) const {
      if (const auto constant = value.constant()) return nb::int_(*constant);
      return nb::make_tuple("size", value.str());
    }
    nb::object operator()(double value) const { return nb::float_(value); }
    nb::object operator()(const std::string& value) const { return nb::str(value.c_str(), value.size()); }
    nb::object operator()(const ValueRef& ref) const {
      return nb::make_tuple("value", graph.values[ref.id].name);
    }
    nb::object operator()(const NamedConstant& constant) const {
      return nb::make_tuple(constant.kind.str(), constant.name.str());
    }
    nb::object operator()(const ArgList& list) const {
      nb::list items;
      for (const Arg& item : list) items.append(arg_to_python(graph, item));
      return items;
    }
  };
  return std::visit(Visitor{graph}, arg.data);
}

nb::list args_to_python(const Graph& graph, const ArgList& args) {
  nb::list result;
  for (const Arg& arg : args) result.append(arg_to_python(graph, arg));
  return result;
}

nb::dict op_to_dict(const Graph& graph, const Op& op) {
  nb::dict result;
  result["name"] = op.name;
  result["target"] = op.target.str();
  result["short_target"] = std::string(short_target(op.target));
  result["out_target"] = op.out_target.str();
  result["view"] = op.kind == OpKind::kView;
  result["collective"] = op.kind == OpKind::kCollective;
  result["opaque"] = op.kind == OpKind::kOpaque;
  result["group"] = op.group.str();
  result["module"] = op.module.str();
  result["module_type"] = op.module_type.str();
  result["marks"] = op.marks;
  result["args"] = args_to_python(graph, op.args);
  result["inputs"] = names(graph, op_inputs(op));
  result["outputs"] = names(graph, op.outputs);
  result["writes"] = names(graph, op.effects.writes);
  result["random"] = op.effects.random;
  return result;
}

nb::dict value_to_dict(const Graph& graph, const Value& value) {
  nb::dict result;
  result["name"] = value.name;
  result["dtype"] = std::string(dtype_name(value.meta->dtype));
  result["shape"] = texts(value.meta->shape);
  result["strides"] = texts(value.meta->strides);
  result["input"] = value.origin == Origin::kInput;
  result["alias_of"] = value.alias_of == kNoId ? std::string() : graph.values[value.alias_of].name;
  return result;
}

std::vector<nb::dict> ops(const GraphHandle& handle) {
  std::vector<nb::dict> result;
  for (const Op& op : handle.graph->ops) result.push_back(op_to_dict(*handle.graph, op));
  return result;
}

std::vector<nb::dict> values(const GraphHandle& handle) {
  std::vector<nb::dict> result;
  for (const Value& value : handle.graph->values) result.push_back(value_to_dict(*handle.graph, value));
  return result;
}

std::vector<nb::dict> symbols(const GraphHandle& handle) {
  std::vector<nb::dict> result;
  for (const Symbol& symbol : handle.graph->symbols) {
    nb::dict entry;
    entry["name"] = symbol.name;
    entry["min"] = symbol.min;
    entry["max"] = symbol.max == INT64_MAX ? nb::none() : nb::object(nb::int_(symbol.max));
    entry["hint"] = symbol.hint;
    result.push_back(entry);
  }
  return result;
}

}  // namespace

void register_graph(nb::module_& module) {
  nb::class_<GraphHandle>(module, "Graph", "What a model computes: ops in program order. Immutable.")
      .def_prop_ro("name", [](const GraphHandle& self) { return self.graph->name; })
      .def_prop_ro(
          "batch_symbol", [](const GraphHandle& self) { return self.graph->batch_symbol; },
          "The symbol that micro-batches split, or empty.")
      .def_prop_ro(
          "tokens", [](const GraphHandle& self) { return self.graph->tokens.str(); },
          "Rows of work in a batch, as an expression.")
      .def_prop_ro("symbols", symbols)
      .def_prop_ro("ops", ops)
      .def_prop_ro("values", values)
      .def_prop_ro(
          "outputs", [](const GraphHandle& self) { return args_to_python(*self.graph, self.graph->outputs); },
          "As the arguments of ops are.")
      .def_prop_ro("text", [](const GraphHandle& self) { return print(*self.graph); })
      .def("__str__", [](const GraphHandle& self) { return print(*self.graph); })
      .def("__len__", [](const GraphHandle& self) { return self.graph->ops.size(); })
      .def(
          "__eq__", [](const GraphHandle& a, const GraphHandle& b) { return *a.graph == *b.graph; },
          nb::is_operator());
  module.def(
      "parse_graph",
      [](std::string_view source) { return GraphHandle{std::make_shared<const Graph>(parse_graph(source))}; },
      nb::arg("source"), "Reads a graph's text form and checks it. Applies no corrections.");
  module.def("elementwise_targets", &elementwise_targets,
             "Targets whose kernels may write over an input that lies as the result does.");
  module.def(
      "apply_corrections",
      [](const GraphHandle& handle) {
        return GraphHandle{std::make_shared<const Graph>(apply_corrections(*handle.graph))};
      },
      nb::arg("graph"), "Applies what operator schemas do not say; see include/dynaflow/graph.h.");
  module.def(
      "reinplace",
      [](const GraphHandle& handle) {
        return GraphHandle{std::make_shared<const Graph>(reinplace(*handle.graph))};
      },
      nb::arg("graph"),
      "Lets ops change bytes in place where a copy would keep contents that nobody reads again.");
}

}  // namespace dynaflow::bindings
