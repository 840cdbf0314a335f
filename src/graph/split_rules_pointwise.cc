#include <iterator>

#include "graph/split_rules.h"

namespace dynaflow::split {

namespace {

/// One element of the result needs the elements at the same place, broadcasting from the right.
RuleResult pointwise(const RuleContext& context) {
  std::vector<Operand> operands;
  for (ValueId input : op_inputs(context.op()))
    operands.push_back(aligned(context, input, context.out_rank()));
  return combine(context, operands);
}

bool is_index_type(DType dtype) { return dtype == DType::kInt64 || dtype == DType::kInt32; }

/// x + 0 and x - 0 leave row numbers what they are; any other sum reads them as data.
RuleResult add(const RuleContext& context) {
  for (ValueId input : op_inputs(context.op())) {
    if (context.layout(input).kind != Layout::Kind::kCoordinate) continue;
    const bool kept =
        context.tensor(0) == input && context.integer(1) == 0 && is_index_type(context.out().dtype);
    if (!kept) return refuse("it computes with row numbers");
    return relabel(context, same(context, input).to);
  }
  return pointwise(context);
}

/// Copies and casts of argument 0.
RuleResult copied(const RuleContext& context) {
  const auto input = context.tensor(0);
  if (!input) return refuse("its arguments are unusual");
  const bool coordinate = context.layout(*input).kind == Layout::Kind::kCoordinate;
  if (coordinate && !is_index_type(context.out().dtype)) return refuse("it computes with row numbers");
  return relabel(context, same(context, *input).to);
}

/// A fresh tensor of argument 0's sizes, whose values it never reads.
RuleResult like(const RuleContext& context) {
  const auto input = context.tensor(0);
  if (!input || op_inputs(context.op()).size() != 1) return refuse("its arguments are unusual");
  return combine(context, {same(context, *input)});
}

// What only computes each element from the elements at its place.
constexpr std::string_view kSums[] = {"aten.add.Tensor", "aten.add.Scalar", "aten.sub.Tensor",
                                      "aten.sub.Scalar"};
constexpr std::string_view kArithmetic[] = {
    "aten.mul.Tensor",           "aten.mul.Scalar",          "aten.div.Tensor",
    "aten.div.Scalar",           "aten.div.Tensor_mode",     "aten.div.Scalar_mode",
    "aten.rsub.Tensor",          "aten.rsub.Scalar",         "aten.remainder.Tensor",
    "aten.remainder.Scalar",     "aten.fmod.Tensor",         "aten.fmod.Scalar",
    "aten.floor_divide.default", "aten.floor_divide.Scalar", "aten.pow.Tensor_Tensor",
    "aten.pow.Tensor_Scalar",    "aten.pow.Scalar",          "aten.maximum.default",
    "aten.minimum.default",      "aten.addcmul.default",     "aten.addcdiv.default",
    "aten.lerp.Tensor",          "aten.lerp.Scalar",         "aten.atan2.default",
    "aten.clamp.default",        "aten.clamp.Tensor",        "aten.clamp_min.default",
    "aten.clamp_min.Tensor",     "aten.clamp_max.default",   "aten.clamp_max.Tensor",
    "aten.true_divide.Tensor"};
constexpr std::string_view kUnary[] = {
    "aten.abs.default",   "aten.neg.default",      "aten.sign.default",      "aten.reciprocal.default",
    "aten.sqrt.default",  "aten.rsqrt.default",    "aten.square.default",    "aten.exp.default",
    "aten.exp2.default",  "aten.expm1.default",    "aten.log.default",       "aten.log2.default",
    "aten.log1p.default", "aten.sin.default",      "aten.cos.default",       "aten.tan.default",
    "aten.tanh.default",  "aten.sigmoid.default",  "aten.erf.default",       "aten.floor.default",
    "aten.ceil.default",  "aten.round.default",    "aten.trunc.default",     "aten.isnan.default",
    "aten.isinf.default", "aten.isfinite.default", "aten.nan_to_num.default"};
constexpr std::string_view kActivations[] = {
    "aten.relu.default",       "aten.silu.default",        "aten.gelu.default",
    "aten.mish.default",       "aten.softplus.default",    "aten.log_sigmoid.default",
    "aten.leaky_relu.default", "aten.elu.default",         "aten.hardtanh.default",
    "aten.hardswish.default",  "aten.hardsigmoid.default", "aten.threshold.default"};
constexpr std::string_view kComparisons[] = {"aten.eq.Tensor",
                                             "aten.eq.Scalar",
                                             "aten.ne.Tensor",
                                             "aten.ne.Scalar",
                                             "aten.lt.Tensor",
                                             "aten.lt.Scalar",
                                             "aten.le.Tensor",
                                             "aten.le.Scalar",
                                             "aten.gt.Tensor",
                                             "aten.gt.Scalar",
                                             "aten.ge.Tensor",
                                             "aten.ge.Scalar",
                                             "aten.logical_and.default",
                                             "aten.logical_or.default",
                                             "aten.logical_xor.default",
                                             "aten.logical_not.default",
                                             "aten.bitwise_and.Tensor",
                                             "aten.bitwise_and.Scalar",
                                             "aten.bitwise_or.Tensor",
                                             "aten.bitwise_or.Scalar",
                                             "aten.bitwise_xor.Tensor",
                                             "aten.bitwise_xor.Scalar",
                                             "aten.bitwise_not.default",
                                             "aten.__and__.Tensor",
                                             "aten.__and__.Scalar",
                                             "aten.__or__.Tensor",
                                             "aten.__or__.Scalar",
                                             "aten.bitwise_left_shift.Tensor",
                                             "aten.bitwise_right_shift.Tensor",
                                             "aten.__lshift__.Scalar",
                                             "aten.__rshift__.Scalar"};
constexpr std::string_view kChoices[] = {
    "aten.where.self",         "aten.where.ScalarSelf",   "aten.where.ScalarOther", "aten.where.Scalar",
    "aten.masked_fill.Scalar", "aten.masked_fill.Tensor", "aten.copy.default"};

}  // namespace

std::vector<RuleGroup> pointwise_rules() {
  return {
      {add, {.coordinates = true}, {std::begin(kSums), std::end(kSums)}},
      {copied,
       {.coordinates = true},
       {"aten._to_copy.default", "aten.to.dtype", "aten.to.device", "aten.to.dtype_layout",
        "aten.clone.default", "aten.contiguous.default", "aten.alias.default", "aten.detach.default",
        "aten.lift_fresh_copy.default", "aten.lift_fresh.default"}},
      {like,
       {.coordinates = true},
       {"aten.zeros_like.default", "aten.ones_like.default", "aten.empty_like.default",
        "aten.full_like.default"}},
      {pointwise, {}, {std::begin(kArithmetic), std::end(kArithmetic)}},
      {pointwise, {}, {std::begin(kUnary), std::end(kUnary)}},
      {pointwise, {}, {std::begin(kActivations), std::end(kActivations)}},
      {pointwise, {}, {std::begin(kComparisons), std::end(kComparisons)}},
      {pointwise, {}, {std::begin(kChoices), std::end(kChoices)}},
  };
}

std::vector<std::string_view> pointwise_targets() {
  std::vector<std::string_view> targets(std::begin(kSums), std::end(kSums));
  targets.insert(targets.end(), std::begin(kArithmetic), std::end(kArithmetic));
  targets.insert(targets.end(), std::begin(kUnary), std::end(kUnary));
  targets.insert(targets.end(), std::begin(kActivations), std::end(kActivations));
  targets.insert(targets.end(), std::begin(kComparisons), std::end(kComparisons));
  targets.insert(targets.end(), std::begin(kChoices), std::end(kChoices));
  return targets;
}

}  // namespace dynaflow::split
