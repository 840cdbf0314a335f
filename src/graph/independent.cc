#include "graph/independent.h"

#include <algorithm>

namespace dynaflow::split {

Regions::Regions(const Graph& graph, const std::vector<IndependentRegion>& regions)
    : graph_(graph),
      member_(graph.ops.size(), kNoId),
      apart_(graph.ops.size(), false),
      asserted_(graph.ops.size(), false),
      changed_inside_(graph.values.size(), false),
      outside_reader_(graph.values.size()) {
  for (const IndependentRegion& region : regions) {
    for (OpId id : region.ops) member_[id] = static_cast<int>(regions_.size());
    regions_.push_back({region, {}, {}});
  }
  for (OpId id = 0; id < static_cast<OpId>(graph.ops.size()); ++id) {
    const Op& op = graph.ops[id];
    if (op.kind == OpKind::kView && !op.outputs.empty()) {
      const ValueId source = graph.values[op.outputs[0]].alias_of;
      const OpId maker = source == kNoId ? kNoId : graph.values[source].op;
      member_[id] = maker == kNoId ? kNoId : member_[maker];
    }
    // Ranks have to agree on a collective, and an effect has its own order: no word about rows covers them.
    apart_[id] = op.kind == OpKind::kCollective || op.effects.random || op.effects.host_sync ||
                 op.effects.reads_context;
    for (ValueId written : op.effects.writes) {
      const ValueId root = storage_root(graph, written);
      const OpId maker = graph.values[root].op;
      const bool own = member_[id] != kNoId && maker != kNoId && member_[maker] == member_[id];
      if (own) changed_inside_[root] = true;
      if (!own) apart_[id] = true;
    }
  }
}

bool Regions::changes_own(OpId id) const {
  return region_of(id) != kNoId && !graph_.ops[id].effects.writes.empty();
}

bool Regions::is_changed_inside(OpId id) const {
  const std::vector<ValueId>& outputs = graph_.ops[id].outputs;
  return region_of(id) != kNoId && std::any_of(outputs.begin(), outputs.end(), [&](ValueId output) {
           return changed_inside_[storage_root(graph_, output)];
         });
}

/// The region that an op runs with, or kNoId.
int Regions::region_of(OpId id) const {
  const int region = member_[id];
  return region == kNoId || apart_[id] || !regions_[region].refusal.empty() ? kNoId : region;
}

void Regions::begin(const std::vector<std::string>& forced) {
  changed_ = false;
  if (regions_.empty()) return;
  for (size_t id = 0; id < forced.size(); ++id)
    if (!forced[id].empty()) apart_[id] = true;
  asserted_.assign(asserted_.size(), false);
  outside_reader_.assign(outside_reader_.size(), "");
  for (OpId id = 0; id < static_cast<OpId>(graph_.ops.size()); ++id)
    if (graph_.ops[id].kind != OpKind::kView)
      for (ValueId input : op_inputs(graph_.ops[id]))
        add_outside_reader(input, region_of(id), formatted("'{}'", graph_.ops[id].name));
  const auto add_outputs = [&](const auto& self, const Arg& arg) -> void {
    if (const auto* ref = std::get_if<ValueRef>(&arg.data)) add_outside_reader(ref->id, kNoId, "the caller");
    if (const auto* list = std::get_if<ArgList>(&arg.data))
      for (const Arg& item : *list) self(self, item);
  };
  for (const Arg& output : graph_.outputs) add_outputs(add_outputs, output);
}

void Regions::add_outside_reader(ValueId value, int region, const std::string& reader) {
  const ValueId root = storage_root(graph_, value);
  const OpId maker = graph_.values[root].op;
  if (maker == kNoId || !outside_reader_[root].empty()) return;
  if (region_of(maker) != kNoId && region_of(maker) != region) outside_reader_[root] = reader;
}

RuleResult Regions::judge(OpId id, const RuleGroup* group, RuleResult proof, const SplitAnalysis& sofar) {
  const int region = region_of(id);
  if (region == kNoId) return proof;
  const bool own = reads_own(id, group != nullptr && group->traits.coordinates, sofar);
  if (proof.accepted() && !own) return proof;
  if (std::string why = obstacle(id, sofar); !why.empty()) {
    apart_[id] = true;
    changed_ = true;
    return refuse(std::move(why));
  }
  return assert_rows(id, region);
}

/// Whether the op reads what only its part's own run of the region can mean.
bool Regions::reads_own(OpId id, bool tells_numbers, const SplitAnalysis& sofar) const {
  for (ValueId input : op_inputs(graph_.ops[id])) {
    const Layout::Kind kind = sofar.layouts[input].kind;
    if (kind == Layout::Kind::kPrivate) return true;
    if (kind == Layout::Kind::kCoordinate && !tells_numbers && counts_in_part(id, input, sofar)) return true;
  }
  return false;
}

bool Regions::counts_in_part(OpId id, ValueId value, const SplitAnalysis& sofar) const {
  const OpId maker = graph_.values[value].op;
  const int region = region_of(id);
  if (maker == kNoId || region == kNoId || region_of(maker) != region) return false;
  const std::vector<ValueId> inputs = op_inputs(graph_.ops[maker]);
  return std::all_of(inputs.begin(), inputs.end(), [&](ValueId input) {
    return sofar.layouts[input].kind != Layout::Kind::kCoordinate || counts_in_part(maker, input, sofar);
  });
}

/// Why no word about the region's rows lets the op run in parts.
std::string Regions::obstacle(OpId id, const SplitAnalysis& sofar) const {
  const Op& op = graph_.ops[id];
  for (ValueId input : op_inputs(op))
    if (sofar.layouts[input].kind == Layout::Kind::kMixed)
      return formatted("no rows of %{} belong to one part alone", graph_.values[input].name);
  std::vector<ValueId> shared = op.effects.writes;
  for (ValueId output : op.outputs)
    if (graph_.values[output].alias_of != kNoId) shared.push_back(output);
  for (ValueId value : shared) {
    const Value& source = graph_.values[storage_root(graph_, value)];
    const bool inside = source.op != kNoId && region_of(source.op) == region_of(id);
    if (!inside || sofar.forms[source.op] != SplitForm::kSplit)
      return formatted("its result lies in the storage of %{}, which the region does not make in parts",
                       source.name);
  }
  return "";
}

RuleResult Regions::assert_rows(OpId id, int region) {
  RuleResult word;
  for (ValueId output : graph_.ops[id].outputs) {
    const Value& value = graph_.values[output];
    const ValueId root = storage_root(graph_, output);
    const std::string& reader = outside_reader_[root];
    if (reader.empty()) {
      word.layouts.push_back({.kind = Layout::Kind::kPrivate});
      continue;
    }
    word.layouts.push_back(infer_layout(value.meta->shape, graph_.batch_symbol));
    if (word.layouts.back().is_sharded()) continue;
    const std::string read =
        root == output ? "it" : formatted("%{}, in whose storage it lies,", graph_.values[root].name);
    return refuse_region(
        region, formatted("%{} has no rows for each part, and {} reads {} outside of the region", value.name,
                          reader, read));
  }
  asserted_[id] = true;
  return word;
}

RuleResult Regions::refuse_region(int region, std::string why) {
  regions_[region].refusal = std::move(why);
  changed_ = true;
  return refuse(regions_[region].refusal);
}

void Regions::finish(SplitAnalysis& analysis) const {
  analysis.regions = regions_;
  std::vector<bool> used(regions_.size(), false);
  const auto size = static_cast<OpId>(graph_.ops.size());
  for (OpId id = 0; id < size; ++id)
    if (asserted_[id]) used[member_[id]] = true;
  for (OpId id = 0; id < size; ++id) {
    if (member_[id] == kNoId) continue;
    RegionSplit& region = analysis.regions[member_[id]];
    std::string& reason = analysis.reasons[id];
    if (!region.refusal.empty() && !reason.empty())
      reason += formatted("; that the rows of '{}' are independent does not help: {}", region.region.name,
                          region.refusal);
    const bool counts =
        std::any_of(graph_.ops[id].outputs.begin(), graph_.ops[id].outputs.end(), [&](ValueId output) {
          return analysis.layouts[output].kind == Layout::Kind::kCoordinate &&
                 counts_in_part(id, output, analysis);
        });
    if (asserted_[id] || (used[member_[id]] && counts)) region.asserted.push_back(id);
  }
}

}  // namespace dynaflow::split
