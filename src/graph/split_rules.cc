#include "graph/split_rules.h"

#include <algorithm>
#include <numeric>

namespace dynaflow::split {

namespace {

bool arg_depends(const Arg& arg, std::string_view symbol) {
  if (const auto* size = std::get_if<SizeExpr>(&arg.data)) return size->depends_on(symbol);
  const auto* list = std::get_if<ArgList>(&arg.data);
  return list != nullptr &&
         std::any_of(list->begin(), list->end(), [&](const Arg& item) { return arg_depends(item, symbol); });
}

std::optional<int> normalized(const Arg& arg, int rank) {
  const auto* size = std::get_if<SizeExpr>(&arg.data);
  const auto value = size == nullptr ? std::nullopt : size->constant();
  if (!value || *value < -rank || *value >= rank) return std::nullopt;
  return static_cast<int>(*value < 0 ? *value + rank : *value);
}

std::string describe(const RuleContext& context, ValueId value, int dim) {
  return formatted("dimension {} of %{}", dim, context.name(value));
}

}  // namespace

Layout RuleContext::layout(ValueId value) const {
  Layout layout = layouts_[value];
  if (layout.kind == Layout::Kind::kCoordinate && !coordinates_) layout.kind = Layout::Kind::kShard;
  return layout;
}

const Arg& RuleContext::arg(size_t index) const {
  static const Arg kNone;
  return index < op_.args.size() ? op_.args[index] : kNone;
}
std::optional<ValueId> RuleContext::tensor(size_t index) const {
  const auto* ref = std::get_if<ValueRef>(&arg(index).data);
  return ref == nullptr ? std::nullopt : std::optional(ref->id);
}
std::vector<ValueId> RuleContext::tensors(size_t index) const {
  std::vector<ValueId> values;
  if (const auto* list = std::get_if<ArgList>(&arg(index).data))
    for (const Arg& item : *list)
      if (const auto* ref = std::get_if<ValueRef>(&item.data)) values.push_back(ref->id);
  return values;
}
std::optional<SizeExpr> RuleContext::size(size_t index) const {
  const auto* size = std::get_if<SizeExpr>(&arg(index).data);
  return size == nullptr ? std::nullopt : std::optional(*size);
}
std::optional<std::vector<SizeExpr>> RuleContext::sizes(size_t index) const {
  const auto* list = std::get_if<ArgList>(&arg(index).data);
  if (list == nullptr) return std::nullopt;
  std::vector<SizeExpr> sizes;
  for (const Arg& item : *list) {
    const auto* size = std::get_if<SizeExpr>(&item.data);
    if (size == nullptr) return std::nullopt;
    sizes.push_back(*size);
  }
  return sizes;
}
std::optional<int64_t> RuleContext::integer(size_t index) const {
  const auto value = size(index);
  return value ? value->constant() : std::nullopt;
}
bool RuleContext::flag(size_t index) const {
  const auto* value = std::get_if<bool>(&arg(index).data);
  return value != nullptr && *value;
}
std::optional<int> RuleContext::dim(size_t index, int rank) const { return normalized(arg(index), rank); }

std::optional<std::vector<int>> RuleContext::dims(size_t index, int rank) const {
  const Arg& argument = arg(index);
  const auto* list = std::get_if<ArgList>(&argument.data);
  std::vector<int> dims;
  if (std::holds_alternative<std::monostate>(argument.data) || (list != nullptr && list->empty())) {
    dims.resize(rank);
    std::iota(dims.begin(), dims.end(), 0);
    return dims;
  }
  const ArgList one = list == nullptr ? ArgList{argument} : *list;
  for (const Arg& item : one) {
    const auto dim = normalized(item, rank);
    if (!dim) return std::nullopt;
    dims.push_back(*dim);
  }
  return dims;
}
bool RuleContext::argument_depends(size_t index) const {
  return arg_depends(arg(index), graph_.batch_symbol);
}

RuleResult refuse(std::string why) { return {{}, std::move(why)}; }
RuleResult accept(const RuleContext& context, const Layout& layout) {
  return {std::vector<Layout>(context.op().outputs.size(), layout), {}};
}

RuleResult without_rows_from(size_t first, RuleResult result) {
  for (size_t i = first; i < result.layouts.size(); ++i) result.layouts[i] = {.kind = Layout::Kind::kMixed};
  return result;
}

RuleTable::RuleTable() {
  for (auto* family : {pointwise_rules, shape_rules, split_shape_rules, matmul_rules, reduce_rules,
                       index_rules, collective_rules, image_rules})
    for (RuleGroup& group : family()) groups_.push_back(std::move(group));
  for (const RuleGroup& group : groups_)
    for (std::string_view target : group.targets) {
      const bool fresh = by_target_.emplace(target, &group).second;
      DF_CHECK(fresh, "{} has two rules", target);
    }
}
const RuleGroup* RuleTable::find(std::string_view target) const {
  const auto found = by_target_.find(target);
  return found == by_target_.end() ? nullptr : found->second;
}
std::vector<std::string> RuleTable::targets() const {
  std::vector<std::string> targets;
  for (const auto& [target, group] : by_target_) targets.emplace_back(target);
  std::sort(targets.begin(), targets.end());
  return targets;
}

Operand same(const RuleContext& context, ValueId value) {
  return aligned(context, value, context.rank(value));
}
Operand aligned(const RuleContext& context, ValueId value, int rank) {
  Operand operand{value, std::vector<int>(context.rank(value))};
  const int shift = rank - context.rank(value);
  for (int d = 0; d < context.rank(value); ++d) operand.to[d] = std::max(d + shift, kLost);
  return operand;
}

RuleResult combine(const RuleContext& context, const std::vector<Operand>& operands) {
  std::optional<Layout> result;
  ValueId first = kNoId;
  for (const auto& [value, to] : operands) {
    if (static_cast<int>(to.size()) != context.rank(value))
      return refuse(
          formatted("%{} has {} dimensions, not {}", context.name(value), context.rank(value), to.size()));
    const Layout layout = context.layout(value);
    if (!layout.is_sharded()) continue;
    if (to[layout.dim] == kLost)
      return refuse(
          formatted("it mixes the rows of the batch, which is {}", describe(context, value, layout.dim)));
    const Layout moved{Layout::Kind::kShard, to[layout.dim], layout.outer, layout.inner};
    if (result && !(*result == moved))
      return refuse(
          formatted("the batch lies differently in %{} and %{}", context.name(first), context.name(value)));
    result = moved;
    first = value;
  }
  if (!result) return refuse("none of its inputs holds the batch");
  for (const auto& [value, to] : operands) {
    if (context.layout(value).is_sharded()) continue;
    for (size_t d = 0; d < to.size(); ++d) {
      if (to[d] == result->dim && context.shape(value)[d].constant() != 1)
        return refuse(formatted("{} meets the batch but is the same for every part",
                                describe(context, value, static_cast<int>(d))));
    }
  }
  return accept(context, *result);
}

RuleResult relabel(const RuleContext& context, const std::vector<int>& to) {
  const auto input = context.tensor(0);
  if (!input || static_cast<int>(to.size()) != context.rank(*input))
    return refuse("its arguments are unusual");
  Layout layout = context.layout(*input);
  if (!layout.is_sharded()) return refuse("none of its inputs holds the batch");
  if (to[layout.dim] == kLost)
    return refuse(
        formatted("it mixes the rows of the batch, which is {}", describe(context, *input, layout.dim)));
  layout.dim = to[layout.dim];
  return accept(context, layout);
}

Layout infer_layout(const std::vector<SizeExpr>& shape, std::string_view symbol) {
  Layout layout;
  for (size_t d = 0; d < shape.size(); ++d) {
    if (!shape[d].depends_on(symbol)) continue;
    const auto inner = shape[d].divide_exact(SizeExpr::symbol(std::string(symbol)));
    if (layout.is_sharded() || !inner || inner->depends_on(symbol)) return {.kind = Layout::Kind::kMixed};
    layout = {Layout::Kind::kShard, static_cast<int>(d), 1, *inner};
  }
  return layout;
}

SizeExpr product(const std::vector<SizeExpr>& sizes, size_t first, size_t last) {
  SizeExpr result = 1;
  for (size_t i = first; i < last; ++i) result = result * sizes[i];
  return result;
}
std::optional<SizeExpr> quotient(const SizeExpr& a, const SizeExpr& b) {
  if (a == b && !(a == SizeExpr(0))) return 1;
  return a.divide_exact(b);
}

}  // namespace dynaflow::split
