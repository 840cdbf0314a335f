#include "dynaflow/layout.h"

#include <algorithm>

#include "graph/independent.h"
#include "graph/split_rules.h"

namespace dynaflow {

namespace {

/// Classifies every op, forward; then looks for values that cross between parts and the whole in a way that
/// memory does not allow, merges the op on the split side, and starts again until nothing changes.
class Analyzer {
 public:
  Analyzer(const Graph& graph, const std::vector<IndependentRegion>& regions)
      : graph_(graph),
        inputs_(graph),
        rows_(SizeExpr::symbol(graph.batch_symbol)),
        regions_(graph, regions),
        forced_(graph.ops.size()),
        read_(graph.values.size()) {
    result_.layouts.resize(graph.values.size());
    result_.forms.assign(graph.ops.size(), SplitForm::kWhole);
    result_.reasons.resize(graph.ops.size());
    for (OpId id = 0; id < static_cast<OpId>(graph.ops.size()); ++id) {
      const Op& op = graph.ops[id];
      groups_.push_back(table_.find(op.functional.empty() ? op.target : op.functional));
      for (ValueId input : inputs_[id]) read_[input] = true;
    }
    for (const Arg& output : graph.outputs) collect_outputs(output);
    for (ValueId output : outputs_) read_[output] = true;
    find_tokens();
    find_makers();
  }

  SplitAnalysis run() {
    do {
      changed_ = false;
      regions_.begin(forced_);
      classify_all();
      if (regions_.changed())
        start_again();
      else
        check_all();
    } while (changed_);
    regions_.finish(result_);
    return std::move(result_);
  }

 private:
  bool depends(const SizeExpr& size) const { return size.depends_on(graph_.batch_symbol); }
  const Layout& layout(ValueId value) const { return result_.layouts[value]; }

  void collect_outputs(const Arg& arg) {
    if (const auto* ref = std::get_if<ValueRef>(&arg.data)) outputs_.push_back(ref->id);
    if (const auto* list = std::get_if<ArgList>(&arg.data))
      for (const Arg& item : *list) collect_outputs(item);
  }

  /// Results that only readers of the host's state read: they order them, and each part has its own.
  void find_tokens() {
    is_token_.assign(graph_.values.size(), false);
    for (const Op& op : graph_.ops)
      if (op.effects.reads_context)
        for (ValueId output : op.outputs) is_token_[output] = true;
    for (OpId id = 0; id < static_cast<OpId>(graph_.ops.size()); ++id)
      if (!graph_.ops[id].effects.reads_context)
        for (ValueId input : inputs_[id]) is_token_[input] = false;
    for (ValueId output : outputs_) is_token_[output] = false;
  }

  /// Only of storages that something changes: nobody asks for others.
  void find_makers() {
    std::vector<bool> changed(graph_.values.size(), false);
    for (const Op& op : graph_.ops)
      for (ValueId written : op.effects.writes) changed[storage_root(graph_, written)] = true;
    makers_.resize(graph_.values.size());
    for (ValueId value = 0; value < static_cast<ValueId>(graph_.values.size()); ++value) {
      const ValueId root = storage_root(graph_, value);
      if (changed[root] && graph_.values[root].origin == Origin::kOp)
        makers_[root].push_back(graph_.values[value].op);
    }
  }

  /// What was concluded from a region's word does not hold without it.
  void start_again() {
    forced_.assign(graph_.ops.size(), "");
    changed_ = true;
  }

  void force(OpId op, std::string reason) {
    if (!forced_[op].empty()) return;
    forced_[op] = std::move(reason);
    changed_ = true;
  }

  void classify_all() {
    for (size_t v = 0; v < graph_.values.size(); ++v) {
      const Value& value = graph_.values[v];
      if (value.origin != Origin::kOp)
        result_.layouts[v] = split::infer_layout(value.meta->shape, graph_.batch_symbol);
    }
    for (OpId id = 0; id < static_cast<OpId>(graph_.ops.size()); ++id) classify(id);
  }

  void classify(OpId id) {
    const Op& op = graph_.ops[id];
    const split::RuleGroup* group = groups_[id];
    const split::RuleContext context(graph_, op, result_.layouts, rows_,
                                     group != nullptr && group->traits.coordinates);
    SplitForm& form = result_.forms[id];
    std::string& reason = result_.reasons[id];
    reason = regions_.changes_own(id) ? "" : effect_reason(op);
    if (reason.empty() && !regions_.is_changed_inside(id) && is_whole(id, context)) {
      form = SplitForm::kWhole;
      for (ValueId output : op.outputs) result_.layouts[output] = {};
      return;
    }
    if (reason.empty()) reason = forced_[id];
    if (reason.empty()) {
      split::RuleResult proof = regions_.judge(id, group, apply_rule(id, context), result_);
      reason = std::move(proof.refusal);
      if (reason.empty()) {
        form = SplitForm::kSplit;
        for (size_t i = 0; i < op.outputs.size(); ++i) result_.layouts[op.outputs[i]] = proof.layouts[i];
        return;
      }
    }
    form = SplitForm::kMerged;
    for (ValueId output : op.outputs)
      result_.layouts[output] = split::infer_layout(graph_.values[output].meta->shape, graph_.batch_symbol);
  }

  std::string effect_reason(const Op& op) const {
    const Effects& effects = op.effects;
    if (!effects.writes.empty() && op.functional.empty() && !has_hosts_word(op))
      return formatted("it changes %{} in place", graph_.values[effects.writes.front()].name);
    if (effects.random) return "it draws random numbers";
    if (effects.host_sync) return "it makes the host wait for the device";
    return {};
  }

  bool is_whole(OpId id, const split::RuleContext& context) const {
    const Op& op = context.op();
    for (ValueId input : inputs_[id])
      if (layout(input).kind != Layout::Kind::kWhole) return false;
    for (size_t i = 0; i < op.args.size(); ++i)
      if (context.argument_depends(i)) return false;
    return std::all_of(op.outputs.begin(), op.outputs.end(), [&](ValueId output) {
      return split::infer_layout(graph_.values[output].meta->shape, graph_.batch_symbol).kind ==
             Layout::Kind::kWhole;
    });
  }

  split::RuleResult apply_rule(OpId id, const split::RuleContext& context) const {
    const Op& op = context.op();
    const split::RuleGroup* group = groups_[id];
    const bool by_host = has_hosts_word(op);
    if (!by_host && op.kind == OpKind::kOpaque) return split::refuse("it is a call into Python");
    if (!by_host && group == nullptr) return split::refuse(formatted("no rule for {}", op.target));
    if (!by_host && op.outputs.empty()) return split::refuse("it has no result");
    for (ValueId input : inputs_[id])
      if (layout(input).kind == Layout::Kind::kMixed)
        return split::refuse(formatted("no rows of %{} belong to one part alone", graph_.values[input].name));
    for (size_t i = 0; i < op.args.size() && (by_host || !group->traits.sizes); ++i)
      if (context.argument_depends(i))
        return split::refuse(formatted("argument {} depends on the batch size", i));
    split::RuleResult result = by_host ? host_rule(op) : group->rule(context);
    if (result.accepted()) result.refusal = contradiction(context, result);
    if (result.accepted()) result.refusal = shared_write(op, result);
    return result;
  }

  static bool has_hosts_word(const Op& op) { return op.effects.reads_context || op.by_rows; }

  /// By the host's word, the op computes a part's rows: once it is given the part's state, if it reads that.
  split::RuleResult host_rule(const Op& op) const {
    split::RuleResult result;
    for (ValueId output : op.outputs) {
      result.layouts.push_back(split::infer_layout(graph_.values[output].meta->shape, graph_.batch_symbol));
      if (result.layouts.back().kind == Layout::Kind::kWhole && is_token_[output])
        result.layouts.back().kind = Layout::Kind::kPrivate;
    }
    return result;
  }

  /// Why the parts of an op would not each change their own rows only, or nothing.
  std::string shared_write(const Op& op, const split::RuleResult& result) const {
    for (ValueId written : op.effects.writes) {
      const Layout& own = layout(written);
      const bool same = has_hosts_word(op) || result.layouts.empty() || own == result.layouts.front();
      if (own.kind != Layout::Kind::kShard || !same)
        return formatted("it changes %{} in place, which has no rows for each part",
                         graph_.values[written].name);
    }
    return {};
  }

  /// What in the outputs' sizes speaks against a rule's answer, or nothing.
  std::string contradiction(const split::RuleContext& context, const split::RuleResult& result) const {
    const Op& op = context.op();
    DF_CHECK(result.layouts.size() == op.outputs.size(), "the rule of {} forgets outputs", op.target);
    for (size_t i = 0; i < op.outputs.size(); ++i) {
      const Layout& claimed = result.layouts[i];
      const Value& value = graph_.values[op.outputs[i]];
      if (claimed.kind == Layout::Kind::kMixed && !read_[op.outputs[i]]) continue;
      if (claimed.kind == Layout::Kind::kPrivate) continue;
      if (!claimed.is_sharded()) return formatted("its result %{} has no rows for each part", value.name);
      const auto& shape = value.meta->shape;
      for (size_t d = 0; d < shape.size(); ++d) {
        const bool batch = static_cast<int>(d) == claimed.dim;
        if (batch ? !(shape[d] == claimed.outer * context.rows() * claimed.inner) : depends(shape[d]))
          return formatted("dimension {} of its result %{} is {}, which its parts would not add up to", d,
                           value.name, shape[d].str());
      }
      if (claimed.dim >= static_cast<int>(shape.size()) || depends(claimed.outer) || depends(claimed.inner))
        return formatted("the rows of its result %{} are not known", value.name);
    }
    return {};
  }

  void check_all() {
    joined_.assign(graph_.values.size(), kNobody);
    for (OpId id = 0; id < static_cast<OpId>(graph_.ops.size()); ++id) {
      const Op& op = graph_.ops[id];
      const bool split = result_.forms[id] == SplitForm::kSplit;
      if (!split) make_whole_what_is_changed(op);
      for (ValueId input : inputs_[id]) {
        if (!layout(input).is_sharded()) continue;
        if (!split) join(input, id);
        if (split) check_cut(input, id);
        if (split && reads_numbers(id, input)) need_true_rows(input, id);
      }
    }
    for (ValueId output : outputs_)
      if (layout(output).is_sharded()) join(output, kCaller);
    for (ValueId value = 0; value < static_cast<ValueId>(graph_.values.size()); ++value) check_storage(value);
  }

  /// A tensor that is changed as a whole is made as a whole, not in parts that are then put together.
  void make_whole_what_is_changed(const Op& writer) {
    for (ValueId written : writer.effects.writes)
      for (OpId maker : makers_[storage_root(graph_, written)])
        if (result_.forms[maker] == SplitForm::kSplit)
          force(maker, formatted("'{}' changes its result in place", writer.name));
  }

  /// Whether the op of `id` takes row numbers for data, and so needs those of the whole batch.
  bool reads_numbers(OpId id, ValueId value) const {
    if (regions_.asserted(id)) return !regions_.counts_in_part(id, value, result_);
    return groups_[id] == nullptr || !groups_[id]->traits.coordinates;
  }

  bool made_in_parts(ValueId value) const {
    const Value& made = graph_.values[value];
    return made.origin == Origin::kOp && result_.forms[made.op] == SplitForm::kSplit;
  }

  /// Why a part's rows are not one view of the whole with the part's own strides; empty when they are.
  std::string scattered(ValueId value) const {
    const Value& v = graph_.values[value];
    const Layout& where = layout(value);
    if (!where.is_sharded()) return {};
    if (!(where.outer == SizeExpr(1)))
      return formatted("the batch is not outermost in dimension {} of %{}", where.dim, v.name);
    bool movable = !depends(v.meta->offset);
    for (size_t d = 0; d < v.meta->shape.size(); ++d)
      if (v.meta->shape[d].constant() != 1 && depends(v.meta->strides[d])) movable = false;
    return movable ? "" : formatted("the batch is not outermost in the memory of %{}", v.name);
  }

  /// A reader: an op, or one of these.
  static constexpr OpId kCaller = -1;
  static constexpr OpId kNobody = -2;
  std::string name_of(OpId reader) const {
    return reader == kCaller ? "the caller" : formatted("'{}'", graph_.ops[reader].name);
  }

  /// All rows of `value` are read at once, and so lie in one storage with all that share it.
  void join(ValueId value, OpId reader) {
    need_true_rows(value, reader);
    OpId& joined = joined_[storage_root(graph_, value)];
    if (joined == kNobody) joined = reader;
  }

  /// A value that parts make in a storage which holds all rows must be a slice of it in each part.
  void check_storage(ValueId value) {
    if (!made_in_parts(value)) return;
    const ValueId root = storage_root(graph_, value);
    const bool shared = !made_in_parts(root);
    if (!shared && joined_[root] == kNobody) return;
    const std::string why = scattered(value);
    if (why.empty()) return;
    const OpId maker = graph_.values[value].op;
    if (shared) return force(maker, formatted("{}, whose storage is not made in parts", why));
    force(maker, formatted("{}, and {} reads its storage as a whole", why, name_of(joined_[root])));
  }

  /// Each part of `op` reads its rows of a value that is whole in memory.
  void check_cut(ValueId value, OpId op) {
    if (made_in_parts(value)) return;
    const std::string why = scattered(value);
    if (!why.empty()) force(op, formatted("{}, which is not made in parts", why));
  }

  /// Parts count their own rows from 0; `reader` needs the numbers of the whole batch.
  void need_true_rows(ValueId value, OpId reader) {
    if (layout(value).kind != Layout::Kind::kCoordinate) return;
    const OpId maker = graph_.values[value].op;
    for (ValueId input : inputs_[maker])
      if (layout(input).kind == Layout::Kind::kCoordinate) return need_true_rows(input, reader);
    force(maker, formatted("its row numbers are used as data by {}", name_of(reader)));
  }

  const Graph& graph_;
  const OpInputs inputs_;
  const SizeExpr rows_;
  split::Regions regions_;
  split::RuleTable table_;
  std::vector<const split::RuleGroup*> groups_;  // by OpId; null without a rule
  std::vector<std::string> forced_;              // by OpId; why it must be merged whatever its rule says
  std::vector<std::vector<OpId>> makers_;        // by storage root that is changed: of all that lies in it
  std::vector<bool> read_;                       // by ValueId: an op or the caller reads it
  std::vector<bool> is_token_;                   // by ValueId: see find_tokens()
  std::vector<ValueId> outputs_;
  std::vector<OpId> joined_;  // by storage root; who reads all rows of something in it
  SplitAnalysis result_;
  bool changed_ = false;
};

}  // namespace

std::string print(const Layout& layout) {
  switch (layout.kind) {
    case Layout::Kind::kWhole:
      return "whole";
    case Layout::Kind::kMixed:
      return "mixed";
    case Layout::Kind::kPrivate:
      return "private";
    case Layout::Kind::kShard:
    case Layout::Kind::kCoordinate:
      break;
  }
  std::string text =
      formatted("{}({}", layout.kind == Layout::Kind::kShard ? "shard" : "coordinate", layout.dim);
  if (!(layout.outer == SizeExpr(1))) text += formatted(", outer={}", layout.outer.str());
  if (!(layout.inner == SizeExpr(1))) text += formatted(", inner={}", layout.inner.str());
  return text + ")";
}

SplitAnalysis analyze_split(const Graph& graph, const std::vector<IndependentRegion>& regions) {
  if (!graph.batch_symbol.empty()) return Analyzer(graph, regions).run();
  SplitAnalysis whole;
  whole.layouts.resize(graph.values.size());
  whole.forms.assign(graph.ops.size(), SplitForm::kWhole);
  whole.reasons.resize(graph.ops.size());
  for (const IndependentRegion& region : regions) whole.regions.push_back({region, {}, {}});
  return whole;
}

std::vector<std::string> split_rule_targets() { return split::RuleTable().targets(); }

}  // namespace dynaflow
