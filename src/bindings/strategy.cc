#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"

namespace dynaflow::bindings {

namespace {

text::Value to_value(nb::handle object) {
  if (object.is_none()) return text::Value::none();
  if (nb::isinstance<nb::bool_>(object)) return text::Value::boolean(nb::cast<bool>(object));
  if (nb::isinstance<nb::int_>(object)) return text::Value::integral(nb::cast<int64_t>(object));
  if (nb::isinstance<nb::float_>(object)) return text::Value::floating(nb::cast<double>(object));
  if (nb::isinstance<nb::str>(object)) return text::Value::string(nb::cast<std::string>(object));
  if (!nb::isinstance<nb::list>(object) && !nb::isinstance<nb::tuple>(object))
    throw nb::type_error("an option is None, a bool, an int, a float, a string or a list of them");
  std::vector<text::Value> items;
  for (nb::handle item : object) items.push_back(to_value(item));
  return text::Value::list(std::move(items));
}

StrategyRegistry builtin_strategies() {
  StrategyRegistry registry;
  register_builtin_strategies(registry);
  return registry;
}

StrategyHandle make(const std::string& name, const nb::dict& options) {
  StrategyOptions values;
  for (const auto& [key, value] : options) values[nb::cast<std::string>(key)] = to_value(value);
  return {builtin_strategies().make(name, values)};
}

}  // namespace

void register_strategy(nb::module_& module) {
  nb::class_<StrategyHandle>(module, "BuiltinStrategy", "A strategy written in C++.")
      .def_prop_ro("name", [](const StrategyHandle& self) { return self.strategy->name(); })
      .def("partition", [](const StrategyHandle& self) { return self.strategy->partition(); })
      .def(
          "schedule",
          [](const StrategyHandle& self, SchedulerHandle& scheduler, const Batch& batch) {
            self.strategy->schedule(scheduler.scheduler, batch);
          },
          nb::arg("s"), nb::arg("batch"));
  module.def("strategy_names", [] { return builtin_strategies().names(); });
  module.def(
      "make_strategy", make, nb::arg("name"), nb::arg("options") = nb::dict(),
      "A built-in strategy by name. Raises ScheduleError listing the names, or the options, it knows.");
}

}  // namespace dynaflow::bindings
