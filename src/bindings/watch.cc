#include <vector>

#include "bindings/bindings.h"

namespace dynaflow::bindings {

namespace {

#if PY_VERSION_HEX < 0x030C0000
uint64_t version_of(PyObject* dict) {
  return reinterpret_cast<PyDictObject*>(dict)->ma_version_tag;  // bumped by CPython with every change
}
#else
// Later ones share the tag with dictionary watchers: a probe finds that no change is seen.
uint64_t version_of(PyObject*) { return 0; }
#endif

/// Tells whether dictionaries or objects changed since they were added: an entry, an attribute, the class.
/// Whoever makes it keeps them alive, objects' dictionaries too. Under the GIL.
class Watch {
 public:
  void add_dict(const nb::dict& dict) { dicts_.push_back({dict.ptr(), version_of(dict.ptr())}); }

  /// `object` has a __dict__. What its attributes refer to is not watched.
  void add_object(const nb::object& object) {
    const auto attributes = nb::cast<nb::dict>(object.attr("__dict__"));
    objects_.push_back({object.ptr(), Py_TYPE(object.ptr()), attributes.ptr()});
    add_dict(attributes);
  }

  /// Of `object` only what one attribute gives: True, False, None or another object that is unique.
  void add_attribute(const nb::object& object, const nb::str& name) {
    attributes_.push_back({object.ptr(), name, nb::object(object.attr(name)).ptr()});
  }

  bool changed() const {
    for (const Dict& seen : dicts_) {
      if (version_of(seen.dict) != seen.version) return true;
    }
    for (const Object& seen : objects_) {
      if (Py_TYPE(seen.object) != seen.type) return true;
      PyObject* attributes = PyObject_GenericGetDict(seen.object, nullptr);
      Py_XDECREF(attributes);
      if (attributes != seen.attributes) return true;
    }
    for (const Attribute& seen : attributes_) {
      if (nb::object(nb::handle(seen.object).attr(seen.name)).ptr() != seen.value) return true;
    }
    return false;
  }

  size_t size() const { return dicts_.size(); }

 private:
  struct Dict {
    PyObject* dict;
    uint64_t version;
  };
  struct Object {
    PyObject* object;
    PyTypeObject* type;
    PyObject* attributes;
  };
  struct Attribute {
    PyObject* object;
    nb::str name;
    PyObject* value;
  };
  std::vector<Dict> dicts_;
  std::vector<Object> objects_;
  std::vector<Attribute> attributes_;
};

}  // namespace

void register_watch(nb::module_& module) {
  nb::class_<Watch>(module, "Watch",
                    "Tells whether dictionaries or objects changed since they were added: an entry, an\n"
                    "attribute, the class. Whoever makes it keeps them alive, and objects' dictionaries.")
      .def(nb::init<>())
      .def("add_dict", &Watch::add_dict)
      .def("add_object", &Watch::add_object)
      .def("add_attribute", &Watch::add_attribute)
      .def("changed", &Watch::changed)
      .def("__len__", &Watch::size);
}

}  // namespace dynaflow::bindings
