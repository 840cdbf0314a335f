#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"

namespace dynaflow::bindings {

std::function<int64_t(std::string_view)> value_in(Sizes sizes) {
  return [sizes = std::move(sizes)](std::string_view name) {
    const auto found = sizes.find(name);
    if (found == sizes.end()) throw ScheduleError(formatted("the symbol {} has no value", name));
    return found->second;
  };
}

namespace {

SchedulerHandle* make_scheduler(const PartitionHandle& handle, std::string strategy, Sizes sizes) {
  return new SchedulerHandle{handle.partition,
                             Scheduler(handle.partition, std::move(strategy), value_in(std::move(sizes)))};
}

std::vector<ReadyOp> unwrap(const std::vector<OpHandle>& ops) {
  std::vector<ReadyOp> result;
  for (const OpHandle& op : ops) result.push_back(op.op);
  return result;
}

ExecuteOptions options(std::string stream, const std::vector<OpHandle>& after,
                       const Replacement* replacement) {
  ExecuteOptions options{.stream = std::move(stream), .after = unwrap(after), .replacement = {}};
  if (replacement != nullptr) options.replacement = *replacement;
  return options;
}

SignatureHandle signature(const SchedulerHandle& self, const std::vector<OpHandle>& ops) {
  const auto now = [&](const std::vector<SizeExpr>& sizes) {
    std::vector<int64_t> values;
    for (const SizeExpr& size : sizes) values.push_back(self.scheduler.evaluate(size));
    return values;
  };
  SignatureHandle result{self.scheduler.signature(unwrap(ops)), {}, {}};
  for (const TensorSpec& spec : result.signature.inputs)
    result.inputs.emplace_back(now(spec.shape), now(spec.strides));
  for (const TensorSpec& spec : result.signature.outputs)
    result.outputs.emplace_back(now(spec.shape), now(spec.strides));
  return result;
}

[[noreturn]] void refuse_value(const char* use) {
  throw nb::type_error(
      formatted("a size of the batch is a range here, not a number, so {}. Compare it with an "
                "integer (the plan is then made for that side of the border), or get a number "
                "with s.bucket(size, borders)",
                use)
          .c_str());
}

/// Registers a special method that would give away one value of a range.
void refuse(nb::class_<RangedSize>& type, const char* method, const char* use) {
  type.def(method, [use](const RangedSize&, nb::args) -> nb::object { refuse_value(use); });
}

void register_ranged_size(nb::module_& module) {
  nb::class_<RangedSize> type(module, "RangedSize",
                              "A size of the batch. Comparisons with integers hold for the whole bucket.");
  type.def("__lt__", &RangedSize::operator<, nb::arg("other"))
      .def("__le__", &RangedSize::operator<=, nb::arg("other"))
      .def("__gt__", &RangedSize::operator>, nb::arg("other"))
      .def("__ge__", &RangedSize::operator>=, nb::arg("other"))
      .def("__eq__", &RangedSize::operator==, nb::arg("other"))
      .def(
          "__ne__", [](const RangedSize& self, int64_t other) { return !(self == other); }, nb::arg("other"));
  for (const char* method : {"__int__", "__index__", "__float__"})
    refuse(type, method, "it has no single value");
  for (const char* method : {"__str__", "__repr__", "__format__"})
    refuse(type, method, "it cannot be printed");
  refuse(type, "__bool__", "it is neither true nor false");
  refuse(type, "__hash__", "it cannot be a key");
  for (const char* method :
       {"__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__floordiv__", "__rfloordiv__",
        "__truediv__", "__rtruediv__", "__mod__", "__rmod__", "__neg__"})
    refuse(type, method, "it cannot be computed with");
}

void register_ops(nb::module_& module) {
  nb::class_<OpHandle>(module, "Op",
                       "A segment that is ready to run for one part, or for all when it is not split.")
      .def_prop_ro("name", [](const OpHandle& self) { return self.op.name(); })
      .def_prop_ro("tags", [](const OpHandle& self) { return self.op.tags(); })
      .def(
          "has_tag", [](const OpHandle& self, const std::string& tag) { return self.op.has_tag(tag); },
          nb::arg("tag"))
      .def_prop_ro(
          "form", [](const OpHandle& self) { return std::string(form_name(self.op.form())); },
          "\"split\", \"merged\" or \"whole\".")
      .def_prop_ro("segment", [](const OpHandle& self) { return self.op.segment(); })
      .def_prop_ro(
          "part", [](const OpHandle& self) { return self.op.part(); }, "The first part it runs on.")
      .def_prop_ro(
          "parts",
          [](const OpHandle& self) { return nb::make_tuple(self.op.first_part(), self.op.last_part()); },
          "The range of parts it runs on.")
      .def(
          "__eq__",
          [](const OpHandle& a, const OpHandle& b) {
            return a.partition == b.partition && a.op.segment() == b.op.segment() &&
                   a.op.first_part() == b.op.first_part() && a.op.last_part() == b.op.last_part();
          },
          nb::is_operator())
      .def("__hash__", [](const OpHandle& self) { return self.op.segment() * 64 + self.op.first_part(); })
      .def("__repr__", [](const OpHandle& self) {
        return formatted("{}[{}:{}]", self.op.name(), self.op.first_part(), self.op.last_part());
      });
}

std::vector<OpHandle> wrap(const SchedulerHandle& self, const std::vector<ReadyOp>& ops) {
  std::vector<OpHandle> result;
  for (const ReadyOp& op : ops) result.push_back({op, self.partition});
  return result;
}

void add_executes(nb::class_<SchedulerHandle>& scheduler) {
  const std::vector<OpHandle> none;
  scheduler
      .def(
          "execute",
          [](SchedulerHandle& self, const OpHandle& op, std::string stream,
             const std::vector<OpHandle>& after, const Replacement* replacement) {
            self.scheduler.execute(op.op, options(std::move(stream), after, replacement));
          },
          nb::arg("op"), nb::kw_only(), nb::arg("stream") = "compute", nb::arg("after") = none,
          nb::arg("replacement").none() = nb::none())
      .def(
          "execute",
          [](SchedulerHandle& self, const std::vector<OpHandle>& ops, std::string stream,
             const std::vector<OpHandle>& after, const Replacement* replacement) {
            self.scheduler.execute(unwrap(ops), options(std::move(stream), after, replacement));
          },
          nb::arg("ops"), nb::kw_only(), nb::arg("stream") = "compute", nb::arg("after") = none,
          nb::arg("replacement").none() = nb::none(),
          "Runs neighbouring segments on neighbouring parts as one launch, or a replacement in their place.")
      .def(
          "refuse_replacement",
          [](const SchedulerHandle& self, const std::vector<OpHandle>& ops, const std::string& replacement,
             const std::string& why) { self.scheduler.refuse_replacement(unwrap(ops), replacement, why); },
          nb::arg("ops"), nb::arg("replacement"), nb::arg("why"),
          "Raises ScheduleError: the replacement does not fit the ops, and the signature that it must have.")
      .def(
          "irreplaceable",
          [](const SchedulerHandle& self, const std::vector<OpHandle>& ops) {
            return self.scheduler.irreplaceable(unwrap(ops));
          },
          nb::arg("ops"), "Why no kernel can take the place of these ops; empty where one can.")
      .def("signature", signature, nb::arg("ops"),
           "What a replacement of these ops takes and returns. Raises as execute() does.");
}

void add_splits(nb::class_<SchedulerHandle>& scheduler) {
  scheduler
      .def(
          "split", [](SchedulerHandle& self, int parts) { return self.scheduler.split(parts); },
          nb::arg("parts"), "Cuts the batch into even parts, fewer where the rows do not suffice.")
      .def(
          "split",
          [](SchedulerHandle& self, std::vector<int64_t> sizes) {
            return self.scheduler.split(std::move(sizes));
          },
          nb::arg("sizes"), "Cuts the batch into parts of these rows.")
      .def(
          "split",
          [](SchedulerHandle& self, std::vector<double> fractions) {
            return self.scheduler.split(std::move(fractions));
          },
          nb::arg("fractions"), "Cuts the batch by fractions that sum to 1.");
}

void register_scheduler(nb::module_& module) {
  nb::class_<SchedulerHandle> scheduler(module, "Scheduler",
                                        "What a strategy writes its schedule with. Lives for one call.");
  add_splits(scheduler);
  add_executes(scheduler);
  scheduler
      .def(
          "__init__",
          [](SchedulerHandle* self, const PartitionHandle& partition, std::string strategy, Sizes sizes) {
            const std::unique_ptr<SchedulerHandle> made(
                make_scheduler(partition, std::move(strategy), std::move(sizes)));
            new (self) SchedulerHandle(std::move(*made));
          },
          nb::arg("partition"), nb::arg("strategy"), nb::arg("sizes"))
      .def(
          "batch", [](SchedulerHandle& self) { return self.scheduler.batch(); }, nb::keep_alive<0, 1>())
      .def_prop_ro("parts", [](const SchedulerHandle& self) { return self.scheduler.parts(); })
      .def(
          "bucket",
          [](SchedulerHandle& self, const RangedSize& size, const std::vector<int64_t>& borders) {
            return self.scheduler.bucket(size, borders);
          },
          nb::arg("size"), nb::arg("borders"),
          "The index of the range between `borders` that `size` lies in.")
      .def(
          "get_ready_ops",
          [](const SchedulerHandle& self) { return wrap(self, self.scheduler.get_ready_ops()); },
          "Everything whose inputs have been issued, in program order.")
      .def(
          "next_ops",
          [](const SchedulerHandle& self, const std::vector<OpHandle>& ops) {
            return wrap(self, self.scheduler.next_ops(unwrap(ops)));
          },
          nb::arg("ops"),
          "What would become ready through `ops` once they were executed: what to launch with them.")
      .def(
          "run_sequentially", [](SchedulerHandle& self) { self.scheduler.run_sequentially(); },
          "Runs what is left in program order on one stream.")
      .def("finish", [](SchedulerHandle& self) { return ScheduleHandle{self.scheduler.finish()}; });
}

}  // namespace

void register_schedule(nb::module_& module) {
  register_ranged_size(module);
  register_ops(module);
  nb::class_<Batch>(module, "Batch", "What a strategy may ask about the batch that a plan is made for.")
      .def_ro("size", &Batch::size, "Rows along the batch symbol.")
      .def_ro("tokens", &Batch::tokens, "Rows of work: batch, or batch * sequence.");
  nb::class_<ScheduleHandle>(module, "Schedule", "What runs when, and on which stream. Immutable.")
      .def_prop_ro("text", [](const ScheduleHandle& self) { return print(*self.schedule); })
      .def("__str__", [](const ScheduleHandle& self) { return print(*self.schedule); });
  register_scheduler(module);
}

}  // namespace dynaflow::bindings
