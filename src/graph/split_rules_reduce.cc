#include <algorithm>

#include "graph/split_rules.h"

namespace dynaflow::split {

namespace {

/// Reduces the dimensions that argument `dims` names, all of them when it is none.
Rule reduce(size_t dims, size_t keepdim) {
  return [=](const RuleContext& context) {
    const auto input = context.tensor(0);
    const auto reduced = input ? context.dims(dims, context.rank(*input)) : std::nullopt;
    if (!reduced) return refuse("its dimensions are not constant");
    Operand operand = same(context, *input);
    int next = 0;
    for (int d = 0; d < context.rank(*input); ++d) {
      const bool lost = std::count(reduced->begin(), reduced->end(), d) > 0;
      operand.to[d] = lost ? kLost : next;
      next += !lost || context.flag(keepdim) ? 1 : 0;
    }
    return combine(context, {operand});
  };
}

/// Mixes elements along the dimensions that argument `dims` names, and keeps the sizes of the others.
Rule along(size_t dims) {
  return [dims](const RuleContext& context) {
    const auto input = context.tensor(0);
    const auto mixed = input ? context.dims(dims, context.rank(*input)) : std::nullopt;
    if (!mixed) return refuse("its dimensions are not constant");
    Operand operand = same(context, *input);
    for (int d : *mixed) operand.to[d] = kLost;
    return combine(context, {operand});
  };
}

/// tril and triu: which elements of a matrix stay depends on both its dimensions.
RuleResult triangle(const RuleContext& context) {
  const auto input = context.tensor(0);
  if (!input || context.rank(*input) < 2) return refuse("its argument is not a matrix");
  Operand operand = same(context, *input);
  operand.to[operand.to.size() - 1] = operand.to[operand.to.size() - 2] = kLost;
  return combine(context, {operand});
}

/// Norms over the last dimensions, as many as argument 1 has sizes; weights and biases have just those.
RuleResult norm(const RuleContext& context) {
  const auto input = context.tensor(0);
  const auto sizes = context.sizes(1);
  if (!input || !sizes || static_cast<int>(sizes->size()) > context.rank(*input))
    return refuse("its arguments are unusual");
  std::vector<Operand> operands;
  for (ValueId value : op_inputs(context.op())) {
    Operand operand = aligned(context, value, context.rank(*input));
    const int kept = context.rank(*input) - static_cast<int>(sizes->size());
    for (int& to : operand.to) to = to < kept ? to : kLost;
    operands.push_back(std::move(operand));
  }
  return combine(context, operands);
}

}  // namespace

std::vector<RuleGroup> reduce_rules() {
  return {
      {reduce(1, 2),
       {},
       {"aten.mean.dim", "aten.sum.dim_IntList", "aten.prod.dim_int", "aten.amax.default",
        "aten.amin.default", "aten.argmax.default", "aten.argmin.default", "aten.max.dim", "aten.min.dim",
        "aten.any.dim", "aten.any.dims", "aten.all.dim", "aten.all.dims", "aten.logsumexp.default"}},
      {reduce(1, 3),
       {},
       {"aten.var.correction", "aten.std.correction", "aten.var_mean.correction", "aten.std_mean.correction",
        "aten.var.dim", "aten.std.dim"}},
      {reduce(2, 3), {}, {"aten.linalg_vector_norm.default", "aten.norm.ScalarOpt_dim"}},
      {along(1),
       {},
       {"aten._softmax.default", "aten.softmax.int", "aten._safe_softmax.default",
        "aten._log_softmax.default", "aten.log_softmax.int", "aten.cumsum.default", "aten.cumprod.default",
        "aten.logcumsumexp.default", "aten.cummax.default", "aten.cummin.default", "aten.sort.default",
        "aten.argsort.default", "aten.flip.default", "aten.glu.default"}},
      {along(2), {}, {"aten.sort.stable", "aten.argsort.stable", "aten.topk.default", "aten.roll.default"}},
      {triangle, {}, {"aten.tril.default", "aten.triu.default"}},
      {norm,
       {},
       {"aten.native_layer_norm.default", "aten.layer_norm.default", "aten.rms_norm.default",
        "aten._fused_rms_norm.default"}},
  };
}

}  // namespace dynaflow::split
