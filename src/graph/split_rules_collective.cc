#include "graph/split_rules.h"

namespace dynaflow::split {

namespace {

/// Each rank's row i meets the other ranks' row i.
RuleResult elementwise(const RuleContext& context) {
  const auto input = context.tensor(0);
  if (!input) return refuse("its arguments are unusual");
  return combine(context, {same(context, *input)});
}

/// all_gather_into_tensor(x, group_size, group) puts the ranks one after the other along dimension 0.
RuleResult all_gather(const RuleContext& context) {
  const auto ranks = context.integer(1);
  if (!ranks) return refuse("its group size is not constant");
  RuleResult result = elementwise(context);
  for (Layout& layout : result.layouts)
    if (layout.dim == 0) layout.outer = layout.outer * SizeExpr(*ranks);
  return result;
}

/// reduce_scatter_tensor(x, op, group_size, group) leaves each rank its share of dimension 0: whole blocks of
/// rows, or the same rows of another dimension.
RuleResult reduce_scatter(const RuleContext& context) {
  const auto ranks = context.integer(2);
  if (!ranks) return refuse("its group size is not constant");
  RuleResult result = elementwise(context);
  for (Layout& layout : result.layouts) {
    if (layout.dim != 0) continue;
    const auto share = layout.outer.divide_exact(*ranks);
    if (!share) return refuse("it gives each rank other rows of the batch");
    layout.outer = *share;
  }
  return result;
}

/// all_to_all_single(x, output_splits, input_splits, group) exchanges ranges of dimension 0.
RuleResult all_to_all(const RuleContext& context) {
  RuleResult result = elementwise(context);
  if (result.accepted() && result.layouts.front().dim == 0)
    return refuse("it moves rows of the batch between ranks");
  return result;
}

}  // namespace

std::vector<RuleGroup> collective_rules() {
  return {
      {elementwise,
       {},
       {"_c10d_functional.all_reduce.default", "_c10d_functional.wait_tensor.default",
        "_c10d_functional.broadcast.default"}},
      {all_gather, {}, {"_c10d_functional.all_gather_into_tensor.default"}},
      {reduce_scatter, {}, {"_c10d_functional.reduce_scatter_tensor.default"}},
      {all_to_all, {}, {"_c10d_functional.all_to_all_single.default"}},
  };
}

}  // namespace dynaflow::split
