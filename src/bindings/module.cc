#include "bindings/bindings.h"

NB_MODULE(_core, module) {
  using namespace dynaflow::bindings;
  // Dynamo's caches keep compiled graphs until the process ends: that is no leak of ours.
  nanobind::set_leak_warnings(false);
  module.doc() = "DynaFlow's core: graph, partition, schedule, strategy and plan. No torch.";
  module.attr("__version__") = DYNAFLOW_VERSION;
  register_errors(module);
  register_graph(module);
  register_partition(module);
  register_replacement(module);
  register_schedule(module);
  register_strategy(module);
  register_plan(module);
  register_explain(module);
  register_watch(module);
}
