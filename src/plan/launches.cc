#include "plan/launches.h"

#include <map>
#include <optional>
#include <set>

#include "plan/chains.h"

namespace dynaflow {

namespace {

std::vector<OpId> own_ops(const Schedule& schedule, const SegmentRun& run) {
  std::vector<OpId> ops;
  for (SegmentId segment : run.segments) {
    const std::vector<OpId>& own = schedule.partition->segments[segment].ops;
    ops.insert(ops.end(), own.begin(), own.end());
  }
  return ops;
}

/// Makes the ops that replace others, each once for all parts.
class Replacer {
 public:
  Replacer(const Schedule& schedule, const Fusion& fusion, Plan& plan)
      : schedule_(schedule), fusion_(fusion), plan_(plan), regions_(*schedule.partition) {
    for (const Op& op : plan.graph->ops) names_.insert(op.name);
    if (fusion.chains) chains_.emplace(*schedule.partition);
  }

  /// The op in place of a run's segments.
  OpId op_of(const SegmentRun& run) {
    const auto [entry, added] = made_.try_emplace({run.replacement, run.segments}, next());
    if (!added) return entry->second;
    const Replacement& replacement = schedule_.replacements[static_cast<size_t>(run.replacement)];
    const Region region = regions_.of(run.segments);
    add({replacing_op(replacement, region), region.ops, replacement.name, replacement.tolerance});
    return entry->second;
  }

  /// A run's own ops, chains of them as one where kernels can be had.
  std::vector<OpId> launches_of(const SegmentRun& run) {
    if (!chains_) return own_ops(schedule_, run);
    const auto [entry, added] = fused_.try_emplace(run.segments);
    if (added) entry->second = fuse(own_ops(schedule_, run));
    return entry->second;
  }

 private:
  OpId next() const { return static_cast<OpId>(plan_.graph->ops.size() + plan_.replacing.size()); }

  void add(ReplacingOp made) {
    const std::string name = formatted("{}:{}", made.replacement, plan_.graph->ops[made.ops.back()].name);
    made.op.name = name;
    for (int copies = 2; !names_.insert(made.op.name).second; ++copies)
      made.op.name = formatted("{}#{}", name, copies);
    plan_.replacing.push_back(std::move(made));
  }

  std::vector<OpId> fuse(std::vector<OpId> ops) {
    std::vector<OpId> launches;
    for (const std::vector<OpId>& unit : chains_->units(std::move(ops))) {
      if (unit.size() > 1 && add_chain(unit))
        launches.push_back(next() - 1);
      else
        launches.insert(launches.end(), unit.begin(), unit.end());
    }
    return launches;
  }

  bool add_chain(const std::vector<OpId>& ops) {
    const Region region = regions_.of_ops(ops);
    if (region.inputs.empty() || !irreplaceable(*plan_.graph, region).empty()) return false;
    ReplacingOp made{{}, region.ops, std::string(kCompiledChain), 0};
    made.op.outputs = region.outputs;
    for (ValueId input : region.inputs) made.op.args.push_back({ValueRef{input}});
    const std::string kernel = formatted("{}.{}", kCompiledNamespace, kernel_name(*plan_.graph, made));
    made.op.target = kernel + ".default";
    made.op.out_target = kernel + ".out";
    if (fusion_.refused.count(made.op.target.str()) > 0) return false;
    add(std::move(made));
    return true;
  }

  const Schedule& schedule_;
  const Fusion& fusion_;
  Plan& plan_;
  Regions regions_;
  std::optional<ChainFinder> chains_;
  std::set<std::string> names_;
  std::map<std::pair<int, std::vector<SegmentId>>, OpId> made_;
  std::map<std::vector<SegmentId>, std::vector<OpId>> fused_;
};

}  // namespace

Graph kernel_graph(const Graph& graph, const ReplacingOp& chain) {
  return extract(graph, chain.ops, op_inputs(chain.op), chain.op.outputs);
}

std::string kernel_name(const Graph& graph, const ReplacingOp& chain) {
  // FNV-1a, twice: 128 bits are the name, and whoever keeps kernels by it compares the texts.
  uint64_t low = 0xcbf29ce484222325ULL;
  uint64_t high = 0x84222325cbf29ce4ULL;
  for (const char letter : print(kernel_graph(graph, chain))) {
    low = (low ^ static_cast<uint8_t>(letter)) * 0x100000001b3ULL;
    high = (high ^ (static_cast<uint8_t>(letter) + (low >> 56))) * 0x100000001b3ULL;
  }
  return formatted("k{:016x}{:016x}", high, low);
}

std::vector<std::vector<OpId>> choose_launches(const Schedule& schedule, const Issue& issue,
                                               const Fusion& fusion, Plan& plan) {
  const bool plain = !fusion.chains && schedule.replacements.empty();
  std::optional<Replacer> replacer;
  if (!plain) replacer.emplace(schedule, fusion, plan);
  std::vector<std::vector<OpId>> launches;
  for (const IssuedRun& issued : issue.runs) {
    std::vector<OpId>& ops = launches.emplace_back();
    if (issued.run.replacement != kNoId) {
      ops.push_back(replacer->op_of(issued.run));
    } else if (replacer) {
      ops = replacer->launches_of(issued.run);
    } else {
      ops = own_ops(schedule, issued.run);
    }
  }
  return launches;
}

}  // namespace dynaflow
