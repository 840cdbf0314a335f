#include "dynaflow/strategy.h"

namespace dynaflow {

namespace {

/// The baseline, and the plan for batches that are not worth splitting.
class Sequential final : public Strategy {
 public:
  std::string name() const override { return "sequential"; }
  std::vector<Annotation> partition() const override { return {}; }
  void schedule(Scheduler& s, const Batch&) const override { s.run_sequentially(); }
};

}  // namespace

StrategyPtr make_sequential(const StrategyOptions& options) {
  check_options("sequential", options, {});
  return std::make_shared<Sequential>();
}

}  // namespace dynaflow
