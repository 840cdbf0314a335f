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
  int rank = 0;  // of what is read or written
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
  result.rank = context.rank(*source) - count + width;
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

/// Where the rows of the batch are in x[indices]. They may be picked only by their own number: row i is then
/// row i of x, and a part counts its rows from 0 as it holds them. `more` must line up with what is picked.
RuleResult picked_rows(const RuleContext& context, const Indexing& indexing, std::vector<Operand> more) {
  const Layout source = context.layout(indexing.source);
  std::vector<Operand> operands = indexing.tensors;
  ValueId own_rows = kNoId;
  if (source.is_sharded() && indexing.index[source.dim] != kNoId) {
    own_rows = indexing.index[source.dim];
    const bool whole_rows = source.outer == SizeExpr(1) && source.inner == SizeExpr(1);
    if (context.layout(own_rows).kind != Layout::Kind::kCoordinate || !whole_rows ||
        source.kind == Layout::Kind::kCoordinate)
      return refuse(formatted("it picks rows of %{} from the whole batch", context.name(indexing.source)));
  } else {
    operands.push_back(indexing.rest);
  }
  for (size_t d = 0; d < indexing.index.size(); ++d) {
    const ValueId tensor = indexing.index[d];
    if (tensor == kNoId) continue;
    const DType dtype = context.meta(tensor).dtype;
    if (dtype == DType::kBool || dtype == DType::kUInt8)
      return refuse("the size of its result depends on a mask");
    const bool own = tensor == own_rows && static_cast<int>(d) == source.dim;
    if (!own && context.layout(tensor).kind == Layout::Kind::kCoordinate)
      return refuse(formatted("it picks from %{} by row number", context.name(indexing.source)));
  }
  if (source.kind == Layout::Kind::kCoordinate) return refuse("it picks row numbers");
  for (Operand& operand : more) operands.push_back(std::move(operand));
  return combine(context, operands);
}

/// index.Tensor(x, indices).
RuleResult index(const RuleContext& context) {
  const auto indexing = read_indexing(context);
  return indexing ? picked_rows(context, *indexing, {}) : refuse("its arguments are unusual");
}

/// index_put(x, [mask], value): a choice for each element, where the mask covers the batch.
RuleResult put_masked(const RuleContext& context) {
  const auto target = context.tensor(0);
  const auto value = context.tensor(2);
  const auto* list = std::get_if<ArgList>(&context.arg(1).data);
  const auto masks = context.tensors(1);
  if (!target || !value || list == nullptr) return refuse("its arguments are unusual");
  if (list->size() != 1 || masks.size() != 1 || context.meta(masks[0]).dtype != DType::kBool)
    return refuse("it writes rows that its indices pick from the whole batch");
  for (ValueId tensor : {*target, masks[0], *value})
    if (context.layout(tensor).kind == Layout::Kind::kCoordinate)
      return refuse(formatted("it uses the row numbers %{} as data", context.name(tensor)));
  const int covered = context.rank(masks[0]);
  if (covered > context.rank(*target)) return refuse("its arguments are unusual");
  if (context.layout(*value).is_sharded() || context.rank(*value) > context.rank(*target) - covered)
    return refuse("it writes values in the order of the mask's rows in the whole batch");
  if (context.layout(*target).is_sharded() && context.layout(*target).dim >= covered)
    return refuse("its mask does not cover the batch");
  return combine(context, {same(context, *target), same(context, masks[0])});
}

/// index_put(x, indices, value): values go where index(x, indices) would read.
RuleResult index_put(const RuleContext& context) {
  for (ValueId tensor : context.tensors(1))
    if (context.meta(tensor).dtype == DType::kBool) return put_masked(context);
  const auto indexing = read_indexing(context);
  const auto value = context.tensor(2);
  if (!indexing || !value || context.rank(*value) > indexing->rank)
    return refuse("its arguments are unusual");
  if (!context.layout(indexing->source).is_sharded())
    return refuse(formatted("every part would write to %{}", context.name(indexing->source)));
  if (context.layout(*value).kind == Layout::Kind::kCoordinate)
    return refuse(formatted("it uses the row numbers %{} as data", context.name(*value)));
  const RuleResult rows = picked_rows(context, *indexing, {aligned(context, *value, indexing->rank)});
  return rows.accepted() ? accept(context, context.layout(indexing->source)) : rows;
}

/// index_copy(x, dim, index, source) and its like: dimension `dim` is written where the index says.
RuleResult write_along(const RuleContext& context) {
  const auto target = context.tensor(0);
  const auto where = context.tensor(2);
  const auto source = context.tensor(3);
  const auto dim = target ? context.dim(1, context.rank(*target)) : std::nullopt;
  if (!dim || !where || context.rank(*where) > 1) return refuse("its arguments are unusual");
  Operand written = same(context, *target);
  written.to[*dim] = kLost;
  std::vector<Operand> operands{written, {*where, std::vector<int>(context.rank(*where), kLost)}};
  if (source && context.rank(*source) > 0) {
    if (context.rank(*source) != context.rank(*target)) return refuse("its arguments are unusual");
    operands.push_back(same(context, *source));
    operands.back().to[*dim] = kLost;
  }
  return combine(context, operands);
}

/// scatter(x, dim, index, source or a number): rows of all three meet in every other dimension.
RuleResult scatter(const RuleContext& context) {
  const auto target = context.tensor(0);
  const auto where = context.tensor(2);
  const auto source = context.tensor(3);
  const auto dim = target ? context.dim(1, context.rank(*target)) : std::nullopt;
  if (!dim || !where) return refuse("its arguments are unusual");
  std::vector<Operand> operands;
  for (const auto& tensor : {target, where, source}) {
    if (!tensor) continue;
    if (context.rank(*tensor) != context.rank(*target)) return refuse("its arguments are unusual");
    // One row of indices is for row 0 only: nothing is broadcast here.
    if (!context.layout(*tensor).is_sharded())
      return refuse(formatted("%{} does not hold the batch", context.name(*tensor)));
    operands.push_back(same(context, *tensor));
    operands.back().to[*dim] = kLost;
  }
  return combine(context, operands);
}

/// slice_scatter(x, part, dim, ...), select_scatter(x, part, dim, index): one slice of x is replaced.
RuleResult write_slice(const RuleContext& context) {
  const auto target = context.tensor(0);
  const auto part = context.tensor(1);
  const auto dim = target ? context.dim(2, context.rank(*target)) : std::nullopt;
  if (!dim || !part) return refuse("its arguments are unusual");
  if (context.shape(*part) == context.shape(*target))  // all of it is replaced
    return combine(context, {same(context, *target), same(context, *part)});
  const bool selects = context.rank(*part) + 1 == context.rank(*target);
  if (!selects && context.rank(*part) != context.rank(*target)) return refuse("its arguments are unusual");
  Operand whole = same(context, *target);
  whole.to[*dim] = kLost;
  Operand slice{*part, {}};
  for (int d = 0; d < context.rank(*target); ++d)
    if (d != *dim || !selects) slice.to.push_back(d == *dim ? kLost : d);
  return combine(context, {whole, slice});
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
      {index_put, {.coordinates = true}, {"aten.index_put.default"}},
      {write_along,
       {},
       {"aten.index_copy.default", "aten.index_add.default", "aten.index_fill.int_Scalar",
        "aten.index_fill.int_Tensor"}},
      {scatter,
       {},
       {"aten.scatter.src", "aten.scatter.value", "aten.scatter_add.default", "aten.scatter_reduce.two"}},
      {write_slice, {}, {"aten.slice_scatter.default", "aten.select_scatter.default"}},
      {gather, {}, {"aten.gather.default"}},
      {index_select, {}, {"aten.index_select.default"}},
  };
}

}  // namespace dynaflow::split
