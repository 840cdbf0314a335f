#include <algorithm>

#include "graph/split_rules.h"

namespace dynaflow::split {

namespace {

/// The arguments of index.Tensor: which dimensions of the source are indexed, and where everything goes.
struct Indexing {
  ValueId source = kNoId;
  std::vector<ValueId> index;  // by the source's dimension, kNoId where it is not indexed
  std::vector<Operand> tensors;
  Operand rest;  // the source: indexed dimensions are lost
};

/// Index tensors broadcast; their dimensions replace the indexed ones where those are neighbours, and come
/// first otherwise.
std::optional<Indexing> read_indexing(const RuleContext& context) {
  const auto source = context.tensor(0);
  const auto* list = std::get_if<ArgList>(&context.arg(1).data);
  if (!source || list == nullptr || static_cast<int>(list->size()) > context.rank(*source))
    return std::nullopt;
  Indexing result{*source, std::vector<ValueId>(context.rank(*source), kNoId), {}, same(context, *source)};
  int width = 0;
  int first = kNoId;
  int last = kNoId;
  int count = 0;
  for (int d = 0; d < static_cast<int>(list->size()); ++d) {
    if (std::holds_alternative<std::monostate>((*list)[d].data)) continue;
    const auto* ref = std::get_if<ValueRef>(&(*list)[d].data);
    if (ref == nullptr) return std::nullopt;
    result.index[d] = ref->id;
    width = std::max(width, context.rank(ref->id));
    if (first == kNoId) first = d;
    last = d;
    ++count;
  }
  if (count == 0) return std::nullopt;
  const int start = last - first + 1 == count ? first : 0;
  int next = 0;
  for (int d = 0; d < context.rank(*source); ++d) {
    if (next == start) next += width;
    if (result.index[d] != kNoId) {
      result.rest.to[d] = kLost;
      Operand tensor = aligned(context, result.index[d], start + width);
      result.tensors.push_back(std::move(tensor));
    } else {
      result.rest.to[d] = next++;
    }
  }
  return result;
}

/// index.Tensor(x, indices). Rows of the batch may be picked only by their own number: row i of the result is
/// row i of x, and a part counts its rows from 0 as it holds them.
RuleResult index(const RuleContext& context) {
  const auto indexing = read_indexing(context);
  if (!indexing) return refuse("its arguments are unusual");
  const Layout source = context.layout(indexing->source);
  std::vector<Operand> operands = indexing->tensors;
  ValueId own_rows = kNoId;
  if (source.is_sharded() && indexing->index[source.dim] != kNoId) {
    own_rows = indexing->index[source.dim];
    const bool whole_rows = source.outer == SizeExpr(1) && source.inner == SizeExpr(1);
    if (context.layout(own_rows).kind != Layout::Kind::kCoordinate || !whole_rows ||
        source.kind == Layout::Kind::kCoordinate)
      return refuse(formatted("it picks rows of %{} from the whole batch", context.name(indexing->source)));
  } else {
    operands.push_back(indexing->rest);
  }
  for (size_t d = 0; d < indexing->index.size(); ++d) {
    const ValueId tensor = indexing->index[d];
    if (tensor == kNoId) continue;
    const DType dtype = context.meta(tensor).dtype;
    if (dtype == DType::kBool || dtype == DType::kUInt8)
      return refuse("the size of its result depends on a mask");
    const bool own = tensor == own_rows && static_cast<int>(d) == source.dim;
    if (!own && context.layout(tensor).kind == Layout::Kind::kCoordinate)
      return refuse(formatted("it picks from %{} by row number", context.name(indexing->source)));
  }
  if (context.layout(indexing->source).kind == Layout::Kind::kCoordinate)
    return refuse("it picks row numbers");
  return combine(context, operands);
}

/// index_put(x, [mask], value): a choice for each element, where the mask covers the batch.
RuleResult index_put(const RuleContext& context) {
  const auto target = context.tensor(0);
  const auto value = context.tensor(2);
  const auto* list = std::get_if<ArgList>(&context.arg(1).data);
  const auto masks = context.tensors(1);
  if (!target || !value || list == nullptr) return refuse("its arguments are unusual");
  if (list->size() != 1 || masks.size() != 1 || context.meta(masks[0]).dtype != DType::kBool)
    return refuse("it writes rows that its indices pick from the whole batch");
  const int covered = context.rank(masks[0]);
  if (covered > context.rank(*target)) return refuse("its arguments are unusual");
  if (context.layout(*value).is_sharded() || context.rank(*value) > context.rank(*target) - covered)
    return refuse("it writes values in the order of the mask's rows in the whole batch");
  if (context.layout(*target).is_sharded() && context.layout(*target).dim >= covered)
    return refuse("its mask does not cover the batch");
  return combine(context, {same(context, *target), same(context, masks[0])});
}

/// gather(x, dim, index): rows of the index meet rows of x in every other dimension.
RuleResult gather(const RuleContext& context) {
  const auto source = context.tensor(0);
  const auto picked = context.tensor(2);
  const auto dim = source ? context.dim(1, context.rank(*source)) : std::nullopt;
  if (!dim || !picked) return refuse("its arguments are unusual");
  Operand rest = same(context, *source);
  rest.to[*dim] = kLost;
  return combine(context, {rest, same(context, *picked)});
}

/// index_select(x, dim, index).
RuleResult index_select(const RuleContext& context) {
  const auto source = context.tensor(0);
  const auto picked = context.tensor(2);
  const auto dim = source ? context.dim(1, context.rank(*source)) : std::nullopt;
  if (!dim || !picked || context.rank(*picked) != 1) return refuse("its arguments are unusual");
  Operand rest = same(context, *source);
  rest.to[*dim] = kLost;
  return combine(context, {rest, {*picked, {*dim}}});
}

}  // namespace

std::vector<RuleGroup> index_rules() {
  return {
      {index, {.coordinates = true}, {"aten.index.Tensor"}},
      {index_put, {}, {"aten.index_put.default"}},
      {gather, {}, {"aten.gather.default"}},
      {index_select, {}, {"aten.index_select.default"}},
  };
}

}  // namespace dynaflow::split
