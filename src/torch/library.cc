#include <torch/custom_class.h>
#include <torch/library.h>

#include "torch/engine.h"
#include "torch/memory_log.h"

// torch.classes.dynaflow.{Runtime, Engine, MemoryLog}: what Python loads with torch.ops.load_library. Calls
// release the GIL.
TORCH_LIBRARY(dynaflow, m) {
  using dynaflow::Engine;
  using dynaflow::MemoryLog;
  using dynaflow::Runtime;
  m.class_<Runtime>("Runtime")
      .def(torch::init<>())
      .def("add_group", &Runtime::add_group)
      .def("add_kernel", &Runtime::add_kernel)
      .def("set_context_op", &Runtime::set_context_op)
      .def("broken", &Runtime::broken)
      .def("close", &Runtime::close);
  m.class_<Engine>("Engine")
      .def(torch::init<c10::intrusive_ptr<Runtime>, std::string, std::vector<at::Tensor>,
                       c10::Dict<std::string, std::vector<int64_t>>>())
      .def("run", &Engine::run)
      .def("run_with", &Engine::run_with, "",
           {torch::arg("arguments"), torch::arg("symbols"), torch::arg("serial"), torch::arg("poison"),
            torch::arg("delays_us"), torch::arg("step") = 0})
      .def("time_against_bare_calls", &Engine::time_against_bare_calls)
      .def("accepts", &Engine::accepts)
      .def("parts", &Engine::parts)
      .def("planned_bytes", &Engine::planned_bytes)
      .def("start_trace", &Engine::start_trace)
      .def("take_trace", &Engine::take_trace)
      .def("counters", &Engine::counters)
      .def("measure", &Engine::measure);
  m.class_<MemoryLog>("MemoryLog")
      .def(torch::init<>())
      .def("start", &MemoryLog::start)
      .def("stop", &MemoryLog::stop)
      .def("entries", &MemoryLog::entries);
  m.def("built_for_torch", []() -> std::string { return DYNAFLOW_BUILT_FOR_TORCH; });
}
