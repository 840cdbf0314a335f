#include <array>
#include <string>

#include "bindings/bindings.h"

namespace dynaflow::bindings {

namespace {

constexpr std::array<const char*, 5> kStages = {"ParseError", "GraphError", "ScheduleError", "PlanError",
                                                "ExecutionError"};

PyObject* add_exception(nb::module_& module, const char* name, PyObject* base) {
  const std::string qualified = std::string("dynaflow.") + name;
  PyObject* type = PyErr_NewException(qualified.c_str(), base, nullptr);
  if (type == nullptr) nb::raise_python_error();
  module.attr(name) = nb::handle(type);  // the module's reference keeps the type; ours is for the translator
  return type;
}

/// Raises the Python exception named after the error's stage, with the message that follows the name.
void translate(const std::exception_ptr& pointer, void* module) {
  try {
    std::rethrow_exception(pointer);
  } catch (const Error& error) {
    const nb::handle types(static_cast<PyObject*>(module));
    const std::string prefix = error.stage() + ": ";
    std::string message = error.what();
    if (message.starts_with(prefix)) message.erase(0, prefix.size());
    const bool known = nb::hasattr(types, error.stage().c_str());
    const nb::object type = types.attr(known ? error.stage().c_str() : "Error");
    PyErr_SetString(type.ptr(), message.c_str());
  }
}

}  // namespace

void register_errors(nb::module_& module) {
  PyObject* base = add_exception(module, "Error", PyExc_RuntimeError);
  for (const char* stage : kStages) add_exception(module, stage, base);
  add_exception(module, "ParameterError", nb::object(module.attr("ExecutionError")).ptr());
  nb::register_exception_translator(translate, module.ptr());
}

}  // namespace dynaflow::bindings
