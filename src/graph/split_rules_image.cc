#include "graph/split_rules.h"

namespace dynaflow::split {

namespace {

/// convolution(input, weight, bias, ...): an image needs no other image.
RuleResult convolution(const RuleContext& context) {
  const auto input = context.tensor(0);
  const auto weight = context.tensor(1);
  if (!input || !weight || context.rank(*input) != context.rank(*weight))
    return refuse("its arguments are unusual");
  Operand images{*input, std::vector<int>(context.rank(*input), kLost)};
  images.to[0] = 0;
  return combine(context, {images, {*weight, std::vector<int>(context.rank(*weight), kLost)}});
}

/// Ops on the last `count` dimensions of argument 0: poolings, resizings. What they count (the indices of a
/// maximum) they count within these.
Rule planes(int count) {
  return [count](const RuleContext& context) {
    const auto input = context.tensor(0);
    if (!input || context.rank(*input) < count) return refuse("its arguments are unusual");
    Operand operand = same(context, *input);
    for (int d = context.rank(*input) - count; d < context.rank(*input); ++d) operand.to[d] = kLost;
    return combine(context, {operand});
  };
}

/// Batch norms from running statistics. `training`: the argument that says to take those of the batch.
Rule batch_norm(size_t training) {
  return [training](const RuleContext& context) {
    if (context.flag(training)) return refuse("it takes statistics over the batch");
    const auto input = context.tensor(0);
    if (!input || context.rank(*input) < 2) return refuse("its arguments are unusual");
    std::vector<Operand> operands = {same(context, *input)};
    for (size_t at = 1; at < 5; ++at)
      if (const auto value = context.tensor(at)) operands.push_back({*value, {1}});
    return without_rows_from(1, combine(context, operands));
  };
}

/// native_group_norm(input, weight, bias, N, C, HxW, group, eps): within one image.
RuleResult group_norm(const RuleContext& context) {
  const auto input = context.tensor(0);
  const auto images = context.size(3);
  if (!input || !images || context.rank(*input) < 2 || !(*images == context.shape(*input)[0]) ||
      context.argument_depends(4) || context.argument_depends(5))
    return refuse("it counts something else than the rows of the batch");
  Operand operand{*input, std::vector<int>(context.rank(*input), kLost)};
  operand.to[0] = 0;
  return combine(context, {operand});
}

constexpr size_t kNeverTraining = 99;

}  // namespace

std::vector<RuleGroup> image_rules() {
  return {
      {convolution, {}, {"aten.convolution.default"}},
      {planes(1), {}, {"aten.max_pool1d.default", "aten.avg_pool1d.default", "aten.upsample_nearest1d.vec"}},
      {planes(2),
       {},
       {"aten.max_pool2d_with_indices.default", "aten.max_pool2d.default", "aten.avg_pool2d.default",
        "aten._adaptive_avg_pool2d.default", "aten.adaptive_avg_pool2d.default",
        "aten.adaptive_max_pool2d.default", "aten.upsample_nearest2d.default", "aten.upsample_nearest2d.vec",
        "aten.upsample_bilinear2d.default", "aten.upsample_bilinear2d.vec", "aten.upsample_bicubic2d.default",
        "aten.upsample_bicubic2d.vec"}},
      {planes(3), {}, {"aten.pixel_shuffle.default", "aten.pixel_unshuffle.default"}},
      {batch_norm(kNeverTraining), {}, {"aten._native_batch_norm_legit_no_training.default"}},
      {batch_norm(5), {}, {"aten.native_batch_norm.default", "aten._native_batch_norm_legit.default"}},
      {group_norm, {.sizes = true}, {"aten.native_group_norm.default"}},
  };
}

}  // namespace dynaflow::split
