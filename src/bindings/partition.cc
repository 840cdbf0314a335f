#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"

namespace dynaflow::bindings {

std::string_view form_name(SplitForm form) {
  switch (form) {
    case SplitForm::kSplit:
      return "split";
    case SplitForm::kMerged:
      return "merged";
    case SplitForm::kWhole:
      break;
  }
  return "whole";
}

namespace {

nb::dict segment_to_dict(const Partition& partition, const Segment& segment) {
  nb::dict result;
  std::vector<std::string> ops;
  for (OpId op : segment.ops) ops.push_back(partition.graph->ops[op].name);
  result["name"] = segment.name;
  result["ops"] = ops;
  result["tags"] = segment.tags;
  result["form"] = std::string(form_name(segment.form));
  result["reason"] = segment.reason;
  result["inputs"] = segment.inputs;
  return result;
}

std::vector<nb::dict> segments(const PartitionHandle& handle) {
  std::vector<nb::dict> result;
  for (const Segment& segment : handle.partition->segments)
    result.push_back(segment_to_dict(*handle.partition, segment));
  return result;
}

std::vector<nb::dict> unmatched(const PartitionHandle& handle) {
  std::vector<nb::dict> result;
  for (const Unmatched& entry : handle.partition->unmatched) {
    nb::dict item;
    item["patterns"] = entry.annotation.patterns;
    item["near_misses"] = entry.near_misses;
    result.push_back(item);
  }
  return result;
}

nb::dict layout_to_dict(const Layout& layout) {
  nb::dict result;
  const std::string text = print(layout);
  result["kind"] = text.substr(0, text.find('('));
  result["dim"] = layout.dim;
  result["outer"] = layout.outer.str();
  result["inner"] = layout.inner.str();
  return result;
}

nb::dict layouts(const PartitionHandle& handle) {
  const Partition& partition = *handle.partition;
  nb::dict result;
  for (size_t id = 0; id < partition.graph->values.size(); ++id)
    result[partition.graph->values[id].name.c_str()] = layout_to_dict(partition.split.layouts[id]);
  return result;
}

nb::dict region_to_dict(const Partition& partition, const RegionSplit& split) {
  nb::dict result;
  std::vector<std::string> ops;
  for (OpId op : split.asserted) ops.push_back(partition.graph->ops[op].name);
  result["name"] = split.region.name;
  result["ops"] = ops;
  result["refusal"] = split.refusal;
  return result;
}

std::vector<nb::dict> regions(const PartitionHandle& handle) {
  std::vector<nb::dict> result;
  for (const RegionSplit& split : handle.partition->split.regions)
    result.push_back(region_to_dict(*handle.partition, split));
  return result;
}

}  // namespace

void register_partition(nb::module_& module) {
  nb::class_<Annotation>(module, "Annotation", "Where to cut a graph, and the tags of what is cut out.")
      .def_ro("patterns", &Annotation::patterns)
      .def_ro("tags", &Annotation::tags)
      .def_ro("rows_independent", &Annotation::rows_independent)
      .def("__eq__", [](const Annotation& a, const Annotation& b) { return a == b; }, nb::is_operator());
  const auto tags = nb::arg("tags") = std::vector<std::string>();
  const auto independent = nb::arg("rows_independent") = false;
  module.def("split_func", &split_func, nb::arg("patterns"), tags, independent);
  module.def("split_module", &split_module, nb::arg("pattern"), tags, independent);
  module.def("split_mark", &split_mark, nb::arg("name"), tags, independent);
  nb::class_<PartitionHandle>(module, "Partition", "A graph cut into segments. Immutable.")
      .def_prop_ro("segments", segments)
      .def_prop_ro("unmatched", unmatched, "Annotations that matched nothing, and the names nearest to them.")
      .def_prop_ro(
          "regions", regions,
          "For each match that rows_independent asserts: its name; `ops`, which only that word splits; "
          "and `refusal`, why the word does not help.")
      .def_prop_ro("layouts", layouts, "By value: `kind`, and of a sharded one `dim`, `outer` and `inner`.")
      .def_prop_ro("text", [](const PartitionHandle& self) { return print(*self.partition); })
      .def("__str__", [](const PartitionHandle& self) { return print(*self.partition); });
  module.def(
      "partition",
      [](const GraphHandle& graph, const std::vector<Annotation>& annotations) {
        return PartitionHandle{partition(graph.graph, annotations)};
      },
      nb::arg("graph"), nb::arg("annotations"), "Cuts a graph at the annotations.");
}

}  // namespace dynaflow::bindings
