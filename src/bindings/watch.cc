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

/// Whether both hold the same objects in the same order.
bool same_entries(PyObject* a, PyObject* b) {
  if (PyDict_GET_SIZE(a) != PyDict_GET_SIZE(b)) return false;
  Py_ssize_t at_a = 0;
  Py_ssize_t at_b = 0;
  PyObject *key_a, *key_b, *value_a, *value_b;
  while (PyDict_Next(a, &at_a, &key_a, &value_a) && PyDict_Next(b, &at_b, &key_b, &value_b)) {
    if (key_a != key_b || value_a != value_b) return false;
  }
  return true;
}

/// Tells whether dictionaries or objects changed since they were added: an entry, an attribute, the class.
/// What was changed and put back is no change. Whoever makes it keeps all that it is given alive, and
/// objects' dictionaries. Under the GIL.
class Watch {
 public:
  /// `copy` of `dict` as it is now.
  void add_dict(const nb::dict& dict, const nb::dict& copy) {
    dicts_.push_back({dict.ptr(), version_of(dict.ptr()), copy.ptr()});
  }

  /// The class of `object`, and that `attributes` are its __dict__; their entries are another matter.
  void add_object(const nb::object& object, const nb::dict& attributes) {
    objects_.push_back({object.ptr(), Py_TYPE(object.ptr()), attributes.ptr()});
  }

  /// Of `object` only what one attribute gives: True, False, None or another object that is unique.
  void add_attribute(const nb::object& object, const nb::str& name) {
    attributes_.push_back({object.ptr(), name, nb::object(object.attr(name)).ptr()});
  }

  bool changed() {
    for (Dict& seen : dicts_) {
      const uint64_t version = version_of(seen.dict);
      if (version == seen.version) continue;
      if (!same_entries(seen.dict, seen.copy)) return true;
      seen.version = version;
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
    PyObject* copy;
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
                    "attribute, the class. Whoever makes it keeps all that it is given alive.")
      .def(nb::init<>())
      .def("add_dict", &Watch::add_dict)
      .def("add_object", &Watch::add_object)
      .def("add_attribute", &Watch::add_attribute)
      .def("changed", &Watch::changed)
      .def("__len__", &Watch::size);
}

}  // namespace dynaflow::bindings
