#include "dynaflow/graph.h"

#include <algorithm>
#include <array>
#include <set>

namespace dynaflow {

namespace {

struct DTypeInfo {
  std::string_view name;
  int64_t bytes;
};
constexpr std::array<DTypeInfo, 12> kDTypes = {{{"bool", 1},
                                                {"uint8", 1},
                                                {"int8", 1},
                                                {"int16", 2},
                                                {"int32", 4},
                                                {"int64", 8},
                                                {"float16", 2},
                                                {"bfloat16", 2},
                                                {"float32", 4},
                                                {"float64", 8},
                                                {"complex64", 8},
                                                {"complex128", 16}}};

void collect_inputs(const Arg& arg, std::vector<ValueId>& values) {
  if (const auto* ref = std::get_if<ValueRef>(&arg.data)) values.push_back(ref->id);
  if (const auto* list = std::get_if<ArgList>(&arg.data))
    for (const Arg& item : *list) collect_inputs(item, values);
}

void check_sizes(const Graph& graph, const Value& value) {
  const TensorMeta& meta = value.meta;
  if (meta.strides.size() != meta.shape.size())
    throw GraphError(
        formatted("%{} has {} sizes and {} strides", value.name, meta.shape.size(), meta.strides.size()));
  const auto check_expr = [&](const SizeExpr& expr) {
    if (expr.constant()) return;
    for (const std::string& symbol : expr.symbols())
      if (graph.find_symbol(symbol) == nullptr)
        throw GraphError(formatted("%{} uses the unknown symbol '{}'", value.name, symbol));
  };
  for (const SizeExpr& size : meta.shape) check_expr(size);
  for (const SizeExpr& stride : meta.strides) check_expr(stride);
  check_expr(meta.offset);
}

void check_ids(const Graph& graph, const Op& op) {
  const auto known = [&](ValueId id) { return id >= 0 && id < static_cast<ValueId>(graph.values.size()); };
  for (ValueId id : op_inputs(op))
    if (!known(id)) throw GraphError(formatted("op '{}' reads a value that is not in the graph", op.name));
  for (ValueId id : op.effects.writes)
    if (!known(id)) throw GraphError(formatted("op '{}' writes a value that is not in the graph", op.name));
  for (ValueId id : op.outputs)
    if (!known(id)) throw GraphError(formatted("op '{}' makes a value that is not in the graph", op.name));
  if (op.kind == OpKind::kCollective && op.group.empty())
    throw GraphError(formatted("the collective '{}' names no group", op.name));
}

void check_op(const Graph& graph, OpId id, const std::vector<OpId>& producer) {
  const Op& op = graph.ops[id];
  check_ids(graph, op);
  for (ValueId input : op_inputs(op)) {
    if (producer[input] >= id)
      throw GraphError(formatted("op '{}' reads %{} before it is made", op.name, graph.values[input].name));
  }
  for (size_t i = 0; i < op.outputs.size(); ++i) {
    const Value& value = graph.values[op.outputs[i]];
    if (value.origin != Origin::kOp || value.op != id || value.index != static_cast<int32_t>(i))
      throw GraphError(formatted("output {} of op '{}' does not point back at it", i, op.name));
    if (op.kind == OpKind::kView && value.alias_of == kNoId)
      throw GraphError(formatted("the view %{} has no source", value.name));
  }
}

}  // namespace

int64_t item_size(DType dtype) { return kDTypes[static_cast<size_t>(dtype)].bytes; }
std::string_view dtype_name(DType dtype) { return kDTypes[static_cast<size_t>(dtype)].name; }
DType dtype_from_name(std::string_view name) {
  std::string known;
  for (size_t i = 0; i < kDTypes.size(); ++i) {
    if (kDTypes[i].name == name) return static_cast<DType>(i);
    known += formatted("{}{}", i == 0 ? "" : ", ", kDTypes[i].name);
  }
  throw GraphError(formatted("unknown element type '{}'; known: {}", name, known));
}

size_t MetaPool::Hash::operator()(const SharedMeta& meta) const {
  size_t hash = static_cast<size_t>(meta->dtype);
  for (const auto* sizes : {&meta->shape, &meta->strides})
    for (const SizeExpr& size : *sizes) hash = hash * 31 + hash_of(size);
  return hash;
}

std::vector<SizeExpr> contiguous_strides(const std::vector<SizeExpr>& shape) {
  std::vector<SizeExpr> strides(shape.size());
  SizeExpr stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    // As PyTorch has it: an empty dimension counts as one.
    stride = shape[i].constant() == 0 ? stride : stride * shape[i];
  }
  return strides;
}

SizeExpr storage_elements(const TensorMeta& meta) {
  SizeExpr dense = 1;
  size_t inner = meta.shape.size();
  while (inner > 0 && meta.strides[inner - 1] == dense) dense = dense * meta.shape[--inner];
  if (inner == 0) return dense;
  SizeExpr product = 1;
  SizeExpr span = 1;
  for (size_t d = 0; d < meta.shape.size(); ++d) {
    product = product * meta.shape[d];
    span = span + (meta.shape[d] - 1) * meta.strides[d];
  }
  const bool repeats = std::any_of(meta.strides.begin(), meta.strides.end(),
                                   [](const SizeExpr& stride) { return stride.constant() == 0; });
  if (span == product || repeats) return product;
  // Whole rows, the gap after the last one too: those of parts then add up.
  for (size_t d = 0; d < meta.shape.size(); ++d) {
    const SizeExpr rows = meta.shape[d] * meta.strides[d];
    const auto gap = (rows - span).constant();
    if (gap && *gap >= 0) return rows;
  }
  return span;
}

const Symbol* Graph::find_symbol(std::string_view symbol_name) const {
  for (const Symbol& symbol : symbols)
    if (symbol.name == symbol_name) return &symbol;
  return nullptr;
}

ValueId storage_root(const Graph& graph, ValueId value) {
  while (graph.values[value].alias_of != kNoId) value = graph.values[value].alias_of;
  return value;
}

std::vector<ValueId> op_inputs(const Op& op) {
  std::vector<ValueId> values;
  values.reserve(op.args.size());
  for (const Arg& arg : op.args) collect_inputs(arg, values);
  return values;
}

OpInputs::OpInputs(const Graph& graph) {
  first_.reserve(graph.ops.size() + 1);
  for (const Op& op : graph.ops) {
    first_.push_back(values_.size());
    for (const Arg& arg : op.args) collect_inputs(arg, values_);
  }
  first_.push_back(values_.size());
}

std::string_view short_target(std::string_view target) {
  const size_t first = target.find('.');
  if (first == std::string_view::npos) return target;
  const size_t last = target.rfind('.');
  return last == first ? target.substr(first + 1) : target.substr(first + 1, last - first - 1);
}

void check(const Graph& graph) {
  std::set<std::string_view> names;
  std::vector<OpId> producer(graph.values.size(), kNoId);
  const auto count = static_cast<ValueId>(graph.values.size());
  for (ValueId id = 0; id < count; ++id) {
    const Value& value = graph.values[id];
    if (!names.insert(value.name).second) throw GraphError(formatted("two values are named %{}", value.name));
    if (value.alias_of != kNoId && (value.alias_of < 0 || value.alias_of >= count || value.alias_of == id))
      throw GraphError(formatted("%{} shares the storage of a value that is not in the graph", value.name));
    producer[id] = value.origin == Origin::kOp ? value.op : kNoId;
    if (value.origin == Origin::kOp && (value.op < 0 || value.op >= static_cast<OpId>(graph.ops.size())))
      throw GraphError(formatted("no op makes %{}", value.name));
    if (value.alias_of != kNoId && producer[value.alias_of] > producer[id])
      throw GraphError(formatted("%{} shares the storage of a later value", value.name));
    check_sizes(graph, value);
  }
  std::set<std::string_view> op_names;
  for (OpId id = 0; id < static_cast<OpId>(graph.ops.size()); ++id) {
    if (!op_names.insert(graph.ops[id].name).second)
      throw GraphError(formatted("two ops are named '{}'", graph.ops[id].name));
    check_op(graph, id, producer);
  }
  if (!graph.batch_symbol.empty() && graph.find_symbol(graph.batch_symbol) == nullptr)
    throw GraphError(formatted("the batch symbol '{}' is not in the graph", graph.batch_symbol));
}

}  // namespace dynaflow
