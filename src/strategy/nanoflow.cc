#include "dynaflow/strategy.h"

namespace dynaflow {

namespace {

struct NanoFlowOptions {
  int parts = 2;
  std::vector<double> fractions;  // of the batch, one per part; empty: even
  int64_t min_tokens = 64;        // smaller batches run unsplit: their kernels are bound by weights, not rows
};

int small_count(const text::Value& value) {
  const int64_t count = value.as_int();
  if (count < 1 || count > kMaxParts) value.fail(formatted("1 to {} parts", kMaxParts));
  return static_cast<int>(count);
}

NanoFlowOptions read_options(const StrategyOptions& options) {
  check_options("nanoflow", options, {"fractions", "min_tokens", "parts"});
  NanoFlowOptions result;
  if (const auto found = options.find("parts"); found != options.end())
    result.parts = small_count(found->second);
  if (const auto found = options.find("min_tokens"); found != options.end())
    result.min_tokens = found->second.as_int();
  if (const auto found = options.find("fractions"); found != options.end())
    for (const text::Value& item : found->second.as_list()) result.fractions.push_back(item.as_float());
  const bool both = options.count("parts") > 0 && !result.fractions.empty();
  if (both && result.fractions.size() != static_cast<size_t>(result.parts))
    throw ScheduleError(
        formatted("strategy 'nanoflow': parts={} but {} fractions; give one fraction for each part",
                  result.parts, result.fractions.size()));
  return result;
}

/// Splits the batch and lets each part's collectives run under the other parts' compute (NanoFlow, OSDI '25,
/// section 4). Pays when communication is comparable to compute.
class NanoFlow final : public Strategy {
 public:
  explicit NanoFlow(NanoFlowOptions options) : options_(std::move(options)) {}

  std::string name() const override { return "nanoflow"; }

  std::vector<Annotation> partition() const override {
    return {split_func({"all_reduce|all_gather_into_tensor|reduce_scatter_tensor|all_to_all_single"},
                       {"network"})};
  }

  void schedule(Scheduler& s, const Batch& batch) const override {
    if (batch.tokens < options_.min_tokens) return s.run_sequentially();
    if (options_.fractions.empty()) {
      s.split(options_.parts);
    } else {
      s.split(options_.fractions);
    }
    for (std::vector<ReadyOp> ops = s.get_ready_ops(); !ops.empty(); ops = s.get_ready_ops())
      for (const ReadyOp& op : ops) s.execute(op, {.stream = op.has_tag("network") ? "network" : "compute"});
  }

 private:
  NanoFlowOptions options_;
};

}  // namespace

StrategyPtr make_nanoflow(const StrategyOptions& options) {
  return std::make_shared<NanoFlow>(read_options(options));
}

}  // namespace dynaflow
