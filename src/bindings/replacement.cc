#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"

namespace dynaflow::bindings {

namespace {

/// `args` are texts in the grammar of the text forms: "%in0", "1", "[64]", "none".
Replacement make_replacement(std::string name, std::string target, std::string out_target, bool opaque,
                             const std::vector<std::string>& args, double tolerance) {
  Replacement replacement{std::move(name), std::move(target), std::move(out_target), opaque, {}, tolerance};
  for (const std::string& arg : args) {
    const text::Document document = text::parse("argument:\n  value(" + arg + ")\n");
    replacement.args.push_back(replacement_arg(document.at("argument").lines.at(0).args.at(0)));
  }
  return replacement;
}

std::vector<nb::tuple> described(const std::vector<TensorSpec>& specs) {
  std::vector<nb::tuple> result;
  for (const TensorSpec& spec : specs) {
    std::string shape;
    for (const SizeExpr& size : spec.shape) shape += (shape.empty() ? "" : ", ") + size.str();
    result.push_back(nb::make_tuple(spec.name, std::string(dtype_name(spec.dtype)), "[" + shape + "]"));
  }
  return result;
}

}  // namespace

void register_replacement(nb::module_& module) {
  nb::class_<Replacement>(module, "Replacement", "A kernel that runs in place of neighbouring segments.")
      .def(
          "__init__",
          [](Replacement* self, std::string name, std::string target, std::string out_target, bool opaque,
             const std::vector<std::string>& args, double tolerance) {
            new (self) Replacement(make_replacement(std::move(name), std::move(target), std::move(out_target),
                                                    opaque, args, tolerance));
          },
          nb::arg("name"), nb::arg("target"), nb::arg("out_target") = "", nb::arg("opaque") = false,
          nb::arg("args") = std::vector<std::string>(), nb::arg("tolerance") = 0.0)
      .def_ro("name", &Replacement::name)
      .def_ro("target", &Replacement::target);
  nb::class_<SignatureHandle>(module, "Signature",
                              "What a replacement takes and returns: (name, dtype, shape) of each tensor.")
      .def_prop_ro("inputs", [](const SignatureHandle& self) { return described(self.signature.inputs); })
      .def_prop_ro("outputs", [](const SignatureHandle& self) { return described(self.signature.outputs); })
      .def_ro("input_sizes", &SignatureHandle::inputs,
              "(sizes, strides) of each in the call at hand; for checking kernels.")
      .def_ro("output_sizes", &SignatureHandle::outputs)
      .def("__str__", [](const SignatureHandle& self) { return print(self.signature); });
}

}  // namespace dynaflow::bindings
