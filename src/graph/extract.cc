#include <map>

#include "dynaflow/graph.h"

namespace dynaflow {

namespace {

/// The size that a compiler is told to expect of the i-th symbol: all different, so that none is taken for
/// another, and of the magnitude of a batch in service.
constexpr int64_t kHints[] = {1021, 131, 67, 37, 29, 23};

class Extractor {
 public:
  explicit Extractor(const Graph& graph) : graph_(graph) {}

  Graph run(const std::vector<OpId>& ops, const std::vector<ValueId>& inputs,
            const std::vector<ValueId>& outputs) && {
    for (ValueId input : inputs) add_input(input);
    for (OpId id : ops) {
      for (ValueId input : op_inputs(graph_.ops[id])) add_views_up_to(input);
      add_op(id);
    }
    for (ValueId output : outputs) result_.outputs.push_back({ValueRef{numbers_.at(output)}});
    check(result_);
    return std::move(result_);
  }

 private:
  SizeExpr renamed(const SizeExpr& size) {
    return size.terms().empty() ? size : size.renamed([this](std::string_view name) { return symbol(name); });
  }

  std::string symbol(std::string_view name) {
    const auto [entry, added] = symbols_.try_emplace(std::string(name), "");
    if (!added) return entry->second;
    const size_t number = result_.symbols.size();
    entry->second = formatted("s{}", number);
    result_.symbols.push_back({entry->second, 0, INT64_MAX, kHints[number % std::size(kHints)], kNoId});
    return entry->second;
  }

  TensorMeta renamed(TensorMeta meta) {
    for (SizeExpr& size : meta.shape) size = renamed(size);
    for (SizeExpr& stride : meta.strides) stride = renamed(stride);
    meta.offset = 0;  // a kernel is given the first element
    return meta;
  }

  ValueId add(ValueId id, Value value) {
    const auto number = static_cast<ValueId>(result_.values.size());
    value.name = formatted("v{}", number);
    value.meta = renamed(graph_.values[id].meta);
    numbers_[id] = number;
    result_.values.push_back(std::move(value));
    return number;
  }

  void add_input(ValueId id) {
    Value value;
    value.origin = Origin::kInput;
    value.index = static_cast<int32_t>(result_.values.size());
    add(id, std::move(value));
  }

  /// The views through which `value` is seen of something that is here already.
  void add_views_up_to(ValueId value) {
    if (numbers_.count(value) > 0) return;
    const OpId maker = graph_.values[value].op;
    for (ValueId input : op_inputs(graph_.ops[maker])) add_views_up_to(input);
    add_op(maker);
  }

  Arg renamed(const Arg& arg) {
    if (const auto* ref = std::get_if<ValueRef>(&arg.data)) return {ValueRef{numbers_.at(ref->id)}};
    if (const auto* size = std::get_if<SizeExpr>(&arg.data)) return {renamed(*size)};
    const auto* list = std::get_if<ArgList>(&arg.data);
    if (list == nullptr) return arg;
    ArgList items;
    for (const Arg& item : *list) items.push_back(renamed(item));
    return {std::move(items)};
  }

  void add_op(OpId id) {
    const Op& op = graph_.ops[id];
    Op copy;
    copy.name = formatted("o{}", result_.ops.size());
    copy.target = op.target;
    copy.kind = op.kind;
    for (const Arg& arg : op.args) copy.args.push_back(renamed(arg));
    for (size_t i = 0; i < op.outputs.size(); ++i) {
      const Value& made = graph_.values[op.outputs[i]];
      Value value;
      value.index = static_cast<int32_t>(i);
      value.op = static_cast<OpId>(result_.ops.size());
      value.alias_of = made.alias_of == kNoId ? kNoId : numbers_.at(made.alias_of);
      copy.outputs.push_back(add(op.outputs[i], std::move(value)));
    }
    result_.ops.push_back(std::move(copy));
  }

  const Graph& graph_;
  Graph result_;
  std::map<ValueId, ValueId> numbers_;
  std::map<std::string, std::string> symbols_;
};

}  // namespace

Graph extract(const Graph& graph, const std::vector<OpId>& ops, const std::vector<ValueId>& inputs,
              const std::vector<ValueId>& outputs) {
  return Extractor(graph).run(ops, inputs, outputs);
}

}  // namespace dynaflow
