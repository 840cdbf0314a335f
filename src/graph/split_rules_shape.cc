#include <algorithm>

#include "graph/split_rules.h"

namespace dynaflow::split {

namespace {

/// Whether a list of size arguments says what the result's sizes are. They are asked for again with the rows
/// of each part, so that a size which is equal to the result's only in the whole batch would be wrong there.
bool asks_for_result(const RuleContext& context, size_t argument) {
  const auto sizes = context.sizes(argument);
  const auto& shape = context.out().shape;
  if (!sizes || sizes->size() != shape.size()) return false;
  for (size_t d = 0; d < shape.size(); ++d)
    if ((*sizes)[d].constant() != -1 && !((*sizes)[d] == shape[d])) return false;
  return true;
}

/// The same elements in the same linear order under other sizes: what comes before the rows stays before
/// them.
RuleResult regroup(const RuleContext& context) {
  const auto input = context.tensor(0);
  if (!input || context.op().outputs.size() != 1) return refuse("its arguments are unusual");
  const Layout from = context.layout(*input);
  if (!from.is_sharded()) return refuse("none of its inputs holds the batch");
  const auto& shape = context.shape(*input);
  const auto& result = context.out().shape;
  const SizeExpr before = product(shape, 0, from.dim) * from.outer;
  const SizeExpr after = from.inner * product(shape, from.dim + 1, shape.size());
  for (size_t d = 0; d < result.size(); ++d) {
    if (!context.depends(result[d])) continue;
    const auto share = result[d].divide_exact(context.rows());
    const auto outer = quotient(before, product(result, 0, d));
    const auto inner = share && outer ? quotient(*share, *outer) : std::nullopt;
    if (!inner || !(*inner * product(result, d + 1, result.size()) == after)) break;
    return accept(context, {from.kind, static_cast<int>(d), *outer, *inner});
  }
  return refuse(formatted("its sizes do not keep the rows of %{} apart", context.name(*input)));
}

RuleResult view(const RuleContext& context) {
  if (!asks_for_result(context, 1)) return refuse("its sizes are not those of its result");
  return regroup(context);
}

/// A part of one row would lose the dimension that the whole batch keeps.
RuleResult squeeze(const RuleContext& context) {
  const auto input = context.tensor(0);
  const auto dims = input ? context.dims(1, context.rank(*input)) : std::nullopt;
  if (!dims) return refuse("its arguments are unusual");
  if (std::count(dims->begin(), dims->end(), context.layout(*input).dim) > 0)
    return refuse("it would drop the batch of a part that has one row");
  return regroup(context);
}

RuleResult transpose(const RuleContext& context) {
  const auto input = context.tensor(0);
  if (!input) return refuse("its arguments are unusual");
  const int rank = context.rank(*input);
  const auto a = context.dim(1, rank);
  const auto b = context.dim(2, rank);
  if (!a || !b) return refuse("its dimensions are not constant");
  std::vector<int> to = same(context, *input).to;
  std::swap(to[*a], to[*b]);
  return relabel(context, to);
}

RuleResult t(const RuleContext& context) {
  const auto input = context.tensor(0);
  if (!input || context.rank(*input) != 2) return refuse("its argument is not a matrix");
  return relabel(context, {1, 0});
}

RuleResult permute(const RuleContext& context) {
  const auto input = context.tensor(0);
  const auto order = input ? context.dims(1, context.rank(*input)) : std::nullopt;
  if (!order || static_cast<int>(order->size()) != context.rank(*input))
    return refuse("its arguments are unusual");
  std::vector<int> to(order->size(), kLost);
  for (size_t d = 0; d < order->size(); ++d) to[(*order)[d]] = static_cast<int>(d);
  return relabel(context, to);
}

/// The layout of a result whose rows are all alike, so that any of them will do.
RuleResult by_shape(const RuleContext& context) {
  const Layout layout = infer_layout(context.out().shape, *context.rows().as_symbol());
  if (!layout.is_sharded()) return refuse("its result has no rows for each part");
  return accept(context, layout);
}

/// Rows that all parts share are repeated for each row of the batch, or rows of the batch for other
/// dimensions.
RuleResult expand(const RuleContext& context) {
  const auto input = context.tensor(0);
  if (!input || context.rank(*input) > context.out_rank()) return refuse("its arguments are unusual");
  if (!asks_for_result(context, 1)) return refuse("its sizes are not those of its result");
  const Operand operand = aligned(context, *input, context.out_rank());
  if (context.layout(*input).is_sharded()) return relabel(context, operand.to);
  const RuleResult result = by_shape(context);
  if (!result.accepted()) return result;
  for (size_t d = 0; d < operand.to.size(); ++d)
    if (operand.to[d] == result.layouts[0].dim && context.shape(*input)[d].constant() != 1)
      return refuse(formatted("dimension {} of %{} meets the batch but is the same for every part", d,
                              context.name(*input)));
  return result;
}

/// The same value everywhere. `sizes` is the argument with the sizes.
Rule create(size_t sizes) {
  return [sizes](const RuleContext& context) {
    if (!asks_for_result(context, sizes)) return refuse("its sizes are not those of its result");
    for (size_t i = 0; i < context.op().args.size(); ++i)
      if (i != sizes && context.argument_depends(i)) return refuse("its value depends on the batch size");
    return by_shape(context);
  };
}

/// 0, 1, 2... up to the batch: each part counts its own rows. `start` and `end` are arguments; start 0 is
/// implied where the overload has none.
Rule arange(std::optional<size_t> start, size_t end, std::optional<size_t> step) {
  return [=](const RuleContext& context) {
    const auto last = context.size(end);
    const bool counts_rows = last && *last == context.rows() && (!start || context.integer(*start) == 0) &&
                             (!step || context.integer(*step) == 1);
    const DType dtype = context.out().dtype;
    if (!counts_rows || (dtype != DType::kInt64 && dtype != DType::kInt32))
      return refuse("it counts something else than the rows of the batch");
    return accept(context, {.kind = Layout::Kind::kCoordinate});
  };
}

}  // namespace

std::vector<RuleGroup> shape_rules() {
  const Traits sizes{.sizes = true, .coordinates = true};
  const Traits views{.coordinates = true};
  return {
      {view,
       sizes,
       {"aten.view.default", "aten._unsafe_view.default", "aten.reshape.default",
        "aten._reshape_copy.default", "aten.view_copy.default"}},
      {regroup, views, {"aten.unsqueeze.default", "aten.flatten.using_ints"}},
      {squeeze, views, {"aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims"}},
      {transpose, views, {"aten.transpose.int", "aten.swapaxes.default", "aten.swapdims.default"}},
      {t, views, {"aten.t.default"}},
      {permute, views, {"aten.permute.default"}},
      {expand, sizes, {"aten.expand.default", "aten.broadcast_to.default"}},
      {create(0),
       sizes,
       {"aten.zeros.default", "aten.ones.default", "aten.full.default", "aten.empty.memory_format"}},
      {create(1),
       sizes,
       {"aten.new_zeros.default", "aten.new_ones.default", "aten.new_full.default",
        "aten.new_empty.default"}},
      {arange({}, 0, {}), sizes, {"aten.arange.default"}},
      {arange(0, 1, {}), sizes, {"aten.arange.start"}},
      {arange(0, 1, 2), sizes, {"aten.arange.start_step"}},
  };
}

}  // namespace dynaflow::split
