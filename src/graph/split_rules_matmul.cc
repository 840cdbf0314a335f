#include "graph/split_rules.h"

namespace dynaflow::split {

namespace {

/// How the dimensions of a matrix product's two factors meet those of its result.
const std::vector<int> kRows = {0, kLost};
const std::vector<int> kColumns = {kLost, 1};
const std::vector<int> kBatchRows = {0, 1, kLost};
const std::vector<int> kBatchColumns = {0, kLost, 2};

/// The product of arguments `at` and `at + 1`; where `at` is 1, argument 0 is added to it, broadcasting.
Rule product_of(size_t at, const std::vector<int>& left, const std::vector<int>& right) {
  return [=](const RuleContext& context) {
    const auto a = context.tensor(at);
    const auto b = context.tensor(at + 1);
    if (!a || !b) return refuse("its arguments are unusual");
    std::vector<Operand> operands = {{*a, left}, {*b, right}};
    if (at == 1) {
      const auto added = context.tensor(0);
      if (!added) return refuse("its arguments are unusual");
      operands.push_back(aligned(context, *added, context.out_rank()));
    }
    return combine(context, operands);
  };
}

/// matmul(a, b) of two or more dimensions each: the leading ones broadcast.
RuleResult matmul(const RuleContext& context) {
  const auto a = context.tensor(0);
  const auto b = context.tensor(1);
  if (!a || !b || context.rank(*a) < 2 || context.rank(*b) < 2) return refuse("its arguments are unusual");
  Operand left = aligned(context, *a, context.out_rank());
  Operand right = aligned(context, *b, context.out_rank());
  left.to[context.rank(*a) - 1] = kLost;
  right.to[context.rank(*b) - 2] = kLost;
  return combine(context, {left, right});
}

/// linear(x, weight, bias): the last dimension of x is the contracted one.
RuleResult linear(const RuleContext& context) {
  const auto x = context.tensor(0);
  const auto weight = context.tensor(1);
  if (!x || !weight || context.rank(*x) < 1) return refuse("its arguments are unusual");
  const int last = context.out_rank() - 1;
  Operand input = same(context, *x);
  input.to.back() = kLost;
  std::vector<Operand> operands = {input, {*weight, {last, kLost}}};
  if (const auto bias = context.tensor(2)) operands.push_back({*bias, {last}});
  return combine(context, operands);
}

/// Attention over [batch, heads, rows, size]: a row of the batch needs only its own keys, values and mask.
/// The results that are not attention or its log-sum-exp (seeds, counts) have rows of no part.
Rule attention(size_t dropout) {
  return [dropout](const RuleContext& context) {
    const auto* probability = std::get_if<double>(&context.arg(dropout).data);
    const bool never =
        probability != nullptr ? *probability == 0.0 : context.integer(dropout).value_or(0) == 0;
    if (!never) return refuse("it drops elements at random");
    const auto query = context.tensor(0);
    if (!query || context.rank(*query) < 3) return refuse("its queries have no batch dimension");
    std::vector<Operand> operands;
    for (ValueId input : op_inputs(context.op())) {
      // Query, key, value and mask all end in the same dimensions; only the first stands for rows of the
      // batch.
      Operand operand = aligned(context, input, context.rank(*query));
      for (int& to : operand.to) to = to == 0 ? 0 : kLost;
      operands.push_back(std::move(operand));
    }
    return without_rows_from(2, combine(context, operands));
  };
}

/// embedding(weight, indices, ...): one row of the table for each index.
RuleResult embedding(const RuleContext& context) {
  const auto weight = context.tensor(0);
  const auto indices = context.tensor(1);
  if (!weight || !indices) return refuse("its arguments are unusual");
  return combine(context, {{*weight, {kLost, context.out_rank() - 1}}, same(context, *indices)});
}

}  // namespace

std::vector<RuleGroup> matmul_rules() {
  return {
      {product_of(0, kRows, kColumns), {}, {"aten.mm.default"}},
      {product_of(1, kRows, kColumns), {}, {"aten.addmm.default"}},
      {product_of(0, kBatchRows, kBatchColumns), {}, {"aten.bmm.default"}},
      {product_of(1, kBatchRows, kBatchColumns), {}, {"aten.baddbmm.default"}},
      {product_of(0, kRows, {kLost}), {}, {"aten.mv.default"}},
      {matmul, {}, {"aten.matmul.default"}},
      {linear, {}, {"aten.linear.default"}},
      {attention(3),
       {},
       {"aten._scaled_dot_product_flash_attention_for_cpu.default",
        "aten._scaled_dot_product_flash_attention.default"}},
      {attention(4),
       {},
       {"aten._scaled_dot_product_attention_math.default", "aten.scaled_dot_product_attention.default"}},
      {attention(5),
       {},
       {"aten._scaled_dot_product_efficient_attention.default",
        "aten._scaled_dot_product_cudnn_attention.default"}},
      {embedding, {}, {"aten.embedding.default"}},
  };
}

}  // namespace dynaflow::split
