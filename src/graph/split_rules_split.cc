// Ops that take tensors apart or put them together along a dimension.

#include <limits>

#include "graph/split_rules.h"

namespace dynaflow::split {

namespace {

constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();

bool is_whole_range(const RuleContext& context, const SizeExpr& size) {
  const bool from_start =
      std::holds_alternative<std::monostate>(context.arg(2).data) || context.integer(2) == 0;
  const bool to_end = std::holds_alternative<std::monostate>(context.arg(3).data) ||
                      context.integer(3) == kEnd || context.size(3) == size;
  const bool every = std::holds_alternative<std::monostate>(context.arg(4).data) || context.integer(4) == 1;
  return from_start && to_end && every;
}

/// slice.Tensor(x, dim, start, end, step): all rows, or the same range of another dimension in every row.
RuleResult slice(const RuleContext& context) {
  const auto input = context.tensor(0);
  const auto dim = input ? context.dim(1, context.rank(*input)) : std::nullopt;
  if (!dim) return refuse("its arguments are unusual");
  if (*dim == context.layout(*input).dim && context.layout(*input).is_sharded()) {
    if (!is_whole_range(context, context.shape(*input)[*dim]))
      return refuse("it takes some rows of the batch");
  } else if (context.argument_depends(2) || context.argument_depends(3) || context.argument_depends(4)) {
    return refuse("its range depends on the batch size");
  }
  return relabel(context, same(context, *input).to);
}

/// Drops one dimension.
std::vector<int> without(int rank, int dim) {
  std::vector<int> to(rank);
  for (int d = 0; d < rank; ++d) to[d] = d == dim ? kLost : d - (d > dim ? 1 : 0);
  return to;
}

/// select.int(x, dim, index), unbind.int(x, dim).
RuleResult select(const RuleContext& context) {
  const auto input = context.tensor(0);
  const auto dim = input ? context.dim(1, context.rank(*input)) : std::nullopt;
  if (!dim) return refuse("its arguments are unusual");
  return relabel(context, without(context.rank(*input), *dim));
}

/// Pieces of the dimension that holds the batch: each must be whole blocks of rows, [count][rows][inner].
RuleResult split_blocks(const RuleContext& context, const Layout& layout) {
  RuleResult result;
  for (ValueId output : context.op().outputs) {
    const auto count = context.shape(output)[layout.dim].divide_exact(context.rows() * layout.inner);
    if (!count || context.depends(*count)) return refuse("it takes some rows of the batch");
    result.layouts.push_back({layout.kind, layout.dim, *count, layout.inner});
  }
  return result;
}

/// Whether the sizes that the op is asked for are those of its pieces. `sizes` is one size or a list.
bool asks_for_pieces(const RuleContext& context, int dim) {
  const auto& outputs = context.op().outputs;
  const auto list = context.sizes(1);
  const auto one = context.size(1);
  if (list ? list->size() != outputs.size() : !one) return false;
  for (size_t i = 0; i < outputs.size(); ++i) {
    // The last piece may be smaller than asked; a lone one, only than a size that does not change with the
    // rows.
    const bool remainder = !list && i + 1 == outputs.size() && (i > 0 || !context.depends(*one));
    const SizeExpr& asked = list ? (*list)[i] : *one;
    if (!remainder && !(asked == context.shape(outputs[i])[dim])) return false;
  }
  return true;
}

/// split.Tensor(x, size, dim), split_with_sizes(x, sizes, dim); chunk(x, count, dim) when `counts`.
Rule split(bool counts) {
  return [counts](const RuleContext& context) {
    const auto input = context.tensor(0);
    if (!input) return refuse("its arguments are unusual");
    const bool first = std::holds_alternative<std::monostate>(context.arg(2).data);
    const auto dim = first ? 0 : context.dim(2, context.rank(*input));
    if (!dim || (!counts && !asks_for_pieces(context, *dim)))
      return refuse("its sizes are not those of its results");
    const Layout layout = context.layout(*input);
    if (!layout.is_sharded()) return refuse("none of its inputs holds the batch");
    if (*dim == layout.dim) return split_blocks(context, layout);
    if (context.argument_depends(1)) return refuse("its sizes depend on the batch");
    return relabel(context, same(context, *input).to);
  };
}

/// A tensor of shape [0], which cat skips whatever the others' rank: how an empty cache begins.
bool is_skipped_by_cat(const RuleContext& context, ValueId value) {
  const std::vector<SizeExpr>& shape = context.shape(value);
  return shape.size() == 1 && shape[0] == SizeExpr(0);
}

/// cat(tensors, dim) along another dimension than the batch.
RuleResult cat(const RuleContext& context) {
  const auto dim =
      std::holds_alternative<std::monostate>(context.arg(1).data) ? 0 : context.dim(1, context.out_rank());
  if (!dim) return refuse("its dimension is not constant");
  std::vector<Operand> operands;
  for (ValueId input : context.tensors(0)) {
    if (is_skipped_by_cat(context, input)) continue;
    Operand operand = same(context, input);
    if (context.rank(input) != context.out_rank()) return refuse("its inputs have different ranks");
    operand.to[*dim] = kLost;
    operands.push_back(std::move(operand));
  }
  return combine(context, operands);
}

/// stack(tensors, dim): a new dimension.
RuleResult stack(const RuleContext& context) {
  const auto dim =
      std::holds_alternative<std::monostate>(context.arg(1).data) ? 0 : context.dim(1, context.out_rank());
  if (!dim) return refuse("its dimension is not constant");
  std::vector<Operand> operands;
  for (ValueId input : context.tensors(0)) {
    Operand operand = same(context, input);
    for (int& to : operand.to) to += to >= *dim ? 1 : 0;
    operands.push_back(std::move(operand));
  }
  return combine(context, operands);
}

/// constant_pad_nd(x, pad, value): pads from the last dimension, never the batch.
RuleResult pad(const RuleContext& context) {
  const auto input = context.tensor(0);
  const auto pads = context.sizes(1);
  if (!input || !pads) return refuse("its arguments are unusual");
  const Layout layout = context.layout(*input);
  const size_t from_end = 2 * (context.rank(*input) - 1 - layout.dim);
  for (size_t i = from_end; i < from_end + 2 && i < pads->size(); ++i)
    if ((*pads)[i].constant() != 0) return refuse("it pads the batch");
  return relabel(context, same(context, *input).to);
}

}  // namespace

std::vector<RuleGroup> split_shape_rules() {
  const Traits sizes{.sizes = true, .coordinates = true};
  return {
      {slice, sizes, {"aten.slice.Tensor"}},
      {select, {.coordinates = true}, {"aten.select.int", "aten.unbind.int"}},
      {split(false),
       sizes,
       {"aten.split.Tensor", "aten.split_with_sizes.default", "aten.unsafe_split.Tensor",
        "aten.unsafe_split_with_sizes.default"}},
      {split(true), {.coordinates = true}, {"aten.chunk.default", "aten.unsafe_chunk.default"}},
      {cat, {}, {"aten.cat.default"}},
      {stack, {}, {"aten.stack.default"}},
      {pad, {}, {"aten.constant_pad_nd.default"}},
  };
}

}  // namespace dynaflow::split
