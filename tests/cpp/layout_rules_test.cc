#include <doctest/doctest.h>

#include <algorithm>

#include "dynaflow/layout.h"

using namespace dynaflow;

namespace {

constexpr const char* kInputs = R"(graph: rules {batch=s, tokens=s}
  %s = symbol() {min=2, hint=4}
  %n = symbol() {min=2, hint=4}
  %ids = input(0, tensor(int64, [s, 8]))
  %mask = input(1, tensor(bool, [s, 8]))
  %x = input(2, tensor(float32, [s, 8, 16]))
  %y = input(3, tensor(float32, [s, 8, 16]))
  %m = input(4, tensor(float32, [s, 16]))
  %flat = input(5, tensor(float32, [s*8, 16]))
  %turned = input(6, tensor(float32, [16, s], [1, 16]))
  %late = input(7, tensor(float32, [8, s, 16], [16, 128, 1]))
  %many = input(8, tensor(float32, [n, 16]))
  %q = input(9, tensor(float32, [s, 2, n, 8]))
  %bias = input(10, tensor(float32, [s, 1, n, n]))
  %shared_bias = input(11, tensor(float32, [n, n]))
  %pair = input(12, tensor(float32, [s, 8, s]))
  %row = input(13, tensor(float32, [1, 8, 16]))
  %two = input(14, tensor(float32, [s, 2]))
  %xt = input(15, tensor(float32, [s, 16, 8]))
  %image = input(16, tensor(float32, [s, 4, 8, 8]))
  %w = parameter(17, tensor(float32, [16, 32]))
  %square = parameter(18, tensor(float32, [16, 16]))
  %v = parameter(19, tensor(float32, [16]))
  %table = parameter(20, tensor(float32, [100, 16]))
  %filter = parameter(21, tensor(float32, [6, 4, 3, 3]))
  %channel = parameter(22, tensor(float32, [4]))
  %c = constant(0, tensor(float32, []))
  %pick = constant(1, tensor(int64, [3]))
  %empty = constant(2, tensor(float32, [0]))
)";

struct Case {
  const char* call;
  const char* results;   // their sizes, or "type [sizes]"; several separated by ';'
  const char* expected;  // the layout of each result, or part of the reason for merging
};

/// One op after the common inputs.
std::string verdict(const Case& test) {
  std::string names;
  std::string metas;
  std::string results = test.results;
  for (size_t at = 0, count = 0; at <= results.size(); ++count) {
    const size_t end = std::min(results.find(';', at), results.size());
    std::string meta = results.substr(at, end - at);
    meta = meta.front() == '[' ? "float32, " + meta : meta.insert(meta.find(' '), ",");
    names += formatted("{}%r{}", count == 0 ? "" : ", ", count);
    metas += formatted("{}tensor({})", count == 0 ? "" : ", ", meta);
    at = end + 1;
  }
  std::string source = kInputs;
  source += formatted("  {} = {} {{out=[{}]}}\n  output(none)\n", names, test.call, metas);
  const Graph graph = parse_graph(source);
  const SplitAnalysis analysis = analyze_split(graph);
  if (analysis.forms.back() == SplitForm::kWhole) return "whole";
  if (analysis.forms.back() == SplitForm::kMerged) return "merged: " + analysis.reasons.back();
  std::string text;
  for (ValueId output : graph.ops.back().outputs)
    text += (text.empty() ? "" : " ") + print(analysis.layouts[output]);
  return text;
}

void check_splits(std::initializer_list<Case> cases) {
  for (const Case& test : cases) {
    CAPTURE(test.call);
    CHECK(verdict(test) == test.expected);
  }
}
void check_refuses(std::initializer_list<Case> cases) {
  for (const Case& test : cases) {
    CAPTURE(test.call);
    const std::string text = verdict(test);
    CAPTURE(text);
    CHECK(text.starts_with("merged: "));
    CHECK(text.find(test.expected) != std::string::npos);
  }
}

}  // namespace

TEST_CASE("pointwise ops keep rows, with broadcasting from the right") {
  check_splits({
      {"aten.mul.Tensor(%x, %y)", "[s, 8, 16]", "shard(0)"},
      {"aten.mul.Tensor(%x, %v)", "[s, 8, 16]", "shard(0)"},
      {"aten.mul.Tensor(%v, %x)", "[s, 8, 16]", "shard(0)"},
      {"aten.mul.Tensor(%x, %row)", "[s, 8, 16]", "shard(0)"},
      {"aten.add.Tensor(%x, 1, 1)", "[s, 8, 16]", "shard(0)"},
      {"aten.mul.Tensor(%flat, %v)", "[s*8, 16]", "shard(0, inner=8)"},
      {"aten.where.self(%mask, %c, %c)", "[s, 8]", "shard(0)"},
      {"aten._to_copy.default(%ids, dtype(\"float32\"))", "[s, 8]", "shard(0)"},
      {"aten.copy.default(%x, %y, false)", "[s, 8, 16]", "shard(0)"},
      {"aten.zeros_like.default(%turned)", "[16, s]", "shard(1)"},
  });
  check_refuses({
      {"aten.mul.Tensor(%x, %late)", "[8, s, 16]", "the batch lies differently in %x and %late"},
      {"aten.mul.Tensor(%m, %many)", "[s, 16]",
       "dimension 0 of %many meets the batch but is the same for every part"},
      {"aten.add.Tensor(%m, s, 1)", "[s, 16]", "argument 1 depends on the batch size"},
      {"aten.mul.Tensor(%pair, %c)", "[s, 8, s]", "no rows of %pair belong to one part alone"},
      {"aten.full_like.default(%m, s)", "[s, 16]", "argument 1 depends on the batch size"},
  });
  CHECK(verdict({"aten.mul.Tensor(%w, %c)", "[16, 32]", ""}) == "whole");
}

TEST_CASE("views keep rows where the sizes before them stay the same") {
  check_splits({
      {"aten.view.default(%x, [s*8, 16])", "[s*8, 16]", "shard(0, inner=8)"},
      {"aten.view.default(%x, [s, -1])", "[s, 128]", "shard(0)"},
      {"aten.view.default(%x, [-1])", "[s*128]", "shard(0, inner=128)"},
      {"aten.view.default(%flat, [s, 8, 16])", "[s, 8, 16]", "shard(0)"},
      {"aten.view.default(%flat, [s, 2, 4, 16])", "[s, 2, 4, 16]", "shard(0)"},
      {"aten.reshape.default(%late, [s*8, 16])", "[s*8, 16]", "shard(0, outer=8)"},
      {"aten.reshape.default(%late, [2, s*4, 16])", "[2, s*4, 16]", "shard(1, outer=4)"},
      {"aten.unsqueeze.default(%m, 0)", "[1, s, 16]", "shard(1)"},
      {"aten.unsqueeze.default(%m, -1)", "[s, 16, 1]", "shard(0)"},
      {"aten.flatten.using_ints(%x, 0, 1)", "[s*8, 16]", "shard(0, inner=8)"},
      {"aten.squeeze.dim(%x, 1)", "[s, 8, 16]", "shard(0)"},
      {"aten.transpose.int(%x, 0, -2)", "[8, s, 16]", "shard(1)"},
      {"aten.permute.default(%x, [2, 0, 1])", "[16, s, 8]", "shard(1)"},
      {"aten.t.default(%turned)", "[s, 16]", "shard(0)"},
  });
  check_refuses({
      {"aten.reshape.default(%late, [s, 8, 16])", "[s, 8, 16]",
       "its sizes do not keep the rows of %late apart"},
      {"aten.view.default(%flat, [8, s, 16])", "[8, s, 16]", "its sizes do not keep the rows of %flat apart"},
      {"aten.view.default(%x, [n*8, 16])", "[s*8, 16]", "its sizes are not those of its result"},
      {"aten.view.default(%many, [s, 8])", "[s, 8]", "none of its inputs holds the batch"},
      {"aten.squeeze.dim(%m, 0)", "[s, 16]", "a part that has one row"},
  });
}

TEST_CASE("a shared row expands to the batch, and constants are made for each part") {
  check_splits({
      {"aten.expand.default(%w, [s, 16, 32], false)", "[s, 16, 32]", "shard(0)"},
      {"aten.expand.default(%row, [s, -1, -1], false)", "[s, 8, 16]", "shard(0)"},
      {"aten.expand.default(%m, [4, -1, -1], false)", "[4, s, 16]", "shard(1)"},
      {"aten.full.default([s, 1], 2)", "[s, 1]", "shard(0)"},
      {"aten.new_ones.default(%w, [3, s])", "[3, s]", "shard(1)"},
      {"aten.arange.default(s)", "int64 [s]", "coordinate(0)"},
      {"aten.arange.start_step(0, s, 1)", "int64 [s]", "coordinate(0)"},
  });
  check_refuses({
      {"aten.expand.default(%many, [s, 16], false)", "[s, 16]", "dimension 0 of %many meets the batch"},
      {"aten.full.default([s, 1], s)", "[s, 1]", "its value depends on the batch size"},
      {"aten.ones.default([s, s])", "[s, s]", "no rows for each part"},
      {"aten.new_ones.default(%m, [])", "[]", "no rows for each part"},
      {"aten.arange.start(1, s + 1)", "int64 [s]", "something else than the rows"},
      {"aten.arange.default(s)", "[s]", "something else than the rows"},
  });
  CHECK(verdict({"aten.arange.default(n)", "int64 [n]", ""}) == "whole");
}

TEST_CASE("tensors are taken apart and put together beside the batch") {
  check_splits({
      {"aten.slice.Tensor(%x, 1, 2, 5, 1)", "[s, 3, 16]", "shard(0)"},
      {"aten.slice.Tensor(%x, 0, 0, 9223372036854775807, 1)", "[s, 8, 16]", "shard(0)"},
      {"aten.slice.Tensor(%x, 0, 0, s, 1)", "[s, 8, 16]", "shard(0)"},
      {"aten.select.int(%late, 0, -1)", "[s, 16]", "shard(0)"},
      {"aten.select.int(%x, 2, 3)", "[s, 8]", "shard(0)"},
      {"aten.unbind.int(%two, 1)", "[s];[s]", "shard(0) shard(0)"},
      {"aten.split.Tensor(%x, 4, 1)", "[s, 4, 16];[s, 4, 16]", "shard(0) shard(0)"},
      {"aten.chunk.default(%x, 2, 1)", "[s, 4, 16];[s, 4, 16]", "shard(0) shard(0)"},
      {"aten.cat.default([%x, %y], 1)", "[s, 16, 16]", "shard(0)"},
      {"aten.cat.default([%x, %y], -1)", "[s, 8, 32]", "shard(0)"},
      {"aten.cat.default([%empty, %y], 1)", "[s, 8, 16]", "shard(0)"},
      {"aten.stack.default([%m, %m], 0)", "[2, s, 16]", "shard(1)"},
      {"aten.constant_pad_nd.default(%m, [1, 1], 0.0)", "[s, 18]", "shard(0)"},
  });
  check_refuses({
      {"aten.slice.Tensor(%x, 0, 1, 9223372036854775807, 1)", "[s - 1, 8, 16]",
       "it takes some rows of the batch"},
      {"aten.slice.Tensor(%table, 0, 0, s, 1)", "[s, 16]", "its range depends on the batch size"},
      {"aten.select.int(%x, 0, 0)", "[8, 16]", "mixes the rows of the batch, which is dimension 0 of %x"},
      {"aten.split.Tensor(%m, 2, 0)", "[2, 16];[s - 2, 16]", "it takes some rows of the batch"},
      {"aten.cat.default([%x, %y], 0)", "[2*s, 8, 16]", "mixes the rows of the batch"},
      {"aten.cat.default([%m, %many], 1)", "[s, 32]", "dimension 0 of %many meets the batch"},
      {"aten.constant_pad_nd.default(%m, [0, 0, 0, 1], 0.0)", "[s + 1, 16]", "it pads the batch"},
  });
}

TEST_CASE("products keep the rows of one factor, and refuse to contract the batch") {
  check_splits({
      {"aten.mm.default(%m, %w)", "[s, 32]", "shard(0)"},
      {"aten.mm.default(%flat, %w)", "[s*8, 32]", "shard(0, inner=8)"},
      {"aten.mm.default(%square, %turned)", "[16, s]", "shard(1)"},
      {"aten.addmm.default(%v, %m, %square, 1, 1)", "[s, 16]", "shard(0)"},
      {"aten.addmm.default(%m, %m, %square, 1, 1)", "[s, 16]", "shard(0)"},
      {"aten.bmm.default(%x, %xt)", "[s, 8, 8]", "shard(0)"},
      {"aten.linear.default(%x, %square, %v)", "[s, 8, 16]", "shard(0)"},
      {"aten.matmul.default(%x, %w)", "[s, 8, 32]", "shard(0)"},
      {"aten.mv.default(%m, %v)", "[s]", "shard(0)"},
      {"aten.embedding.default(%table, %ids, -1, false, false)", "[s, 8, 16]", "shard(0)"},
  });
  check_refuses({
      {"aten.mm.default(%turned, %m)", "[16, 16]",
       "mixes the rows of the batch, which is dimension 1 of %turned"},
      {"aten.mm.default(%m, %turned)", "[s, s]", "the batch lies differently in %m and %turned"},
      {"aten.bmm.default(%x, %late)", "[s, 8, 16]",
       "mixes the rows of the batch, which is dimension 1 of %late"},
      {"aten.embedding.default(%m, %pick, -1, false, false)", "[3, 16]", "mixes the rows of the batch"},
  });
}

TEST_CASE("attention keeps the rows of queries, keys, values and mask together") {
  const char* cpu = "aten._scaled_dot_product_flash_attention_for_cpu.default(%q, %q, %q, 0.0, {}, {}, none)";
  const auto cpu_verdict = [&](const char* causal, const char* mask) {
    const std::string call = formatted(fmt::runtime(cpu), causal, mask);
    return verdict({call.c_str(), "[s, 2, n, 8];[s, 2, n]", ""});
  };
  CHECK(cpu_verdict("true", "none") == "shard(0) shard(0)");
  CHECK(cpu_verdict("false", "%bias") == "shard(0) shard(0)");
  CHECK(cpu_verdict("false", "%shared_bias") == "shard(0) shard(0)");
  check_splits({
      {"aten._scaled_dot_product_attention_math.default(%q, %q, %q, %bias, 0.0, false, none, none, false)",
       "[s, 2, n, 8];[s, 2, n, n]", "shard(0) shard(0)"},
      {"aten._scaled_dot_product_efficient_attention.default(%q, %q, %q, none, false, 0.0, false, none)",
       "[s, 2, n, 8];[s, 2, 0];int64 [];int64 []", "shard(0) shard(0) mixed mixed"},
  });
  check_refuses({
      {"aten._scaled_dot_product_attention_math.default(%q, %q, %q, %bias, 0.1, false, none, none, false)",
       "[s, 2, n, 8];[s, 2, n, n]", "it drops elements at random"},
      {"aten.scaled_dot_product_attention.default(%m, %m, %m, none, 0.0, false, none, false)", "[s, 16]",
       "its queries have no batch dimension"},
  });
}

TEST_CASE("reductions, norms and sorts keep rows unless they run along the batch") {
  check_splits({
      {"aten.mean.dim(%x, [-1], true, none)", "[s, 8, 1]", "shard(0)"},
      {"aten.sum.dim_IntList(%late, [0], false, none)", "[s, 16]", "shard(0)"},
      {"aten.var.correction(%x, [1, 2], 0, false)", "[s]", "shard(0)"},
      {"aten.linalg_vector_norm.default(%x, 2, [-1], true, none)", "[s, 8, 1]", "shard(0)"},
      {"aten.max.dim(%x, 1, false)", "[s, 16];int64 [s, 16]", "shard(0) shard(0)"},
      {"aten._softmax.default(%x, -1, false)", "[s, 8, 16]", "shard(0)"},
      {"aten.topk.default(%x, 2, -1, true, true)", "[s, 8, 2];int64 [s, 8, 2]", "shard(0) shard(0)"},
      {"aten.native_layer_norm.default(%x, [16], %v, %v, 1e-05)", "[s, 8, 16];[s, 8, 1];[s, 8, 1]",
       "shard(0) shard(0) shard(0)"},
      {"aten.triu.default(%x, 0)", "[s, 8, 16]", "shard(0)"},
  });
  const char* mixes = "mixes the rows of the batch";
  check_refuses({
      {"aten.mean.dim(%x, [0], true, none)", "[1, 8, 16]", mixes},
      {"aten.amax.default(%x, [], false)", "[]", mixes},
      {"aten.argmax.default(%x, none, false)", "int64 []", mixes},
      {"aten.cumsum.default(%m, 0, none)", "[s, 16]", mixes},
      {"aten.sort.stable(%m, true, 0, false)", "[s, 16];int64 [s, 16]", mixes},
      {"aten.native_layer_norm.default(%turned, [16, s], none, none, 1e-05)", "[16, s];[1, 1];[1, 1]",
       "argument 1 depends on the batch size"},
      {"aten.triu.default(%m, 0)", "[s, 16]", mixes},
  });
}

TEST_CASE("indexing keeps rows where each row picks for itself") {
  check_splits({
      {"aten.index.Tensor(%table, [%ids])", "[s, 8, 16]", "shard(0)"},
      {"aten.index.Tensor(%x, [none, %pick])", "[s, 3, 16]", "shard(0)"},
      {"aten.index.Tensor(%late, [%pick, none, %pick])", "[3, s]", "shard(1)"},
      {"aten.index_put.default(%x, [%mask], %c, false)", "[s, 8, 16]", "shard(0)"},
      {"aten.gather.default(%m, 1, %ids, false)", "[s, 8]", "shard(0)"},
      {"aten.index_select.default(%x, 1, %pick)", "[s, 3, 16]", "shard(0)"},
  });
  check_refuses({
      {"aten.index.Tensor(%x, [%pick])", "[3, 8, 16]", "it picks rows of %x from the whole batch"},
      {"aten.index.Tensor(%table, [%mask])", "[n, 16]", "the size of its result depends on a mask"},
      {"aten.index_put.default(%x, [%pick], %c, false)", "[s, 8, 16]",
       "it picks rows of %x from the whole batch"},
      {"aten.index_put.default(%x, [%mask], %many, false)", "[s, 8, 16]", "in the order of the mask's rows"},
      {"aten.gather.default(%m, 0, %ids, false)", "[s, 8]", "mixes the rows of the batch"},
      {"aten.gather.default(%table, 1, %ids, false)", "[s, 8]", "dimension 0 of %table meets the batch"},
      {"aten.index_select.default(%x, 0, %pick)", "[3, 8, 16]", "mixes the rows of the batch"},
  });
}

TEST_CASE("images keep apart, unless statistics are taken over the batch") {
  check_splits({
      {"aten.convolution.default(%image, %filter, none, [1, 1], [1, 1], [1, 1], false, [0, 0], 1)",
       "[s, 6, 8, 8]", "shard(0)"},
      {"aten.max_pool2d_with_indices.default(%image, [2, 2])", "[s, 4, 4, 4];int64 [s, 4, 4, 4]",
       "shard(0) shard(0)"},
      {"aten._adaptive_avg_pool2d.default(%image, [1, 1])", "[s, 4, 1, 1]", "shard(0)"},
      {"aten._native_batch_norm_legit_no_training.default(%image, %channel, %channel, %channel, %channel, "
       "0.1, "
       "0.001)",
       "[s, 4, 8, 8];[0];[0]", "shard(0) mixed mixed"},
      {"aten.native_group_norm.default(%image, %channel, %channel, s, 4, 64, 2, 0.001)",
       "[s, 4, 8, 8];[s, 2];[s, 2]", "shard(0) shard(0) shard(0)"},
  });
  check_refuses({
      {"aten.native_batch_norm.default(%image, %channel, %channel, none, none, true, 0.1, 0.001)",
       "[s, 4, 8, 8];[4];[4]", "it takes statistics over the batch"},
      {"aten.convolution.default(%filter, %image, none, [1, 1], [1, 1], [1, 1], false, [0, 0], 1)",
       "[6, s, 1, 1]", "it mixes the rows of the batch, which is dimension 0 of %image"},
      {"aten.avg_pool2d.default(%m, [2, 2])", "[s, 8]", "it mixes the rows of the batch"},
      {"aten.native_group_norm.default(%image, %channel, %channel, 1, s*4, 64, 2, 0.001)",
       "[s, 4, 8, 8];[1, 2];[1, 2]", "it counts something else than the rows of the batch"},
  });
}

TEST_CASE("collectives keep the rows of each rank apart") {
  check_splits({
      {"_c10d_functional.all_reduce.default(%x, \"sum\", \"0\")", "[s, 8, 16]", "shard(0)"},
      {"_c10d_functional.all_gather_into_tensor.default(%m, 2, \"0\")", "[2*s, 16]", "shard(0, outer=2)"},
      {"_c10d_functional.all_gather_into_tensor.default(%late, 2, \"0\")", "[16, s, 16]", "shard(1)"},
      {"_c10d_functional.reduce_scatter_tensor.default(%late, \"sum\", 2, \"0\")", "[4, s, 16]", "shard(1)"},
  });
  check_refuses({
      {"_c10d_functional.reduce_scatter_tensor.default(%m, \"sum\", 2, \"0\")", "[s//2, 16]",
       "it gives each rank other rows of the batch"},
      {"_c10d_functional.all_to_all_single.default(%m, [s//2, s//2], [s//2, s//2], \"0\")", "[s, 16]",
       "argument 1 depends on the batch size"},
      {"_c10d_functional.all_to_all_single.default(%m, [4, 4], [4, 4], \"0\")", "[s, 16]",
       "it moves rows of the batch between ranks"},
  });
}

TEST_CASE("an op without a rule runs merged, unless the batch is not in it") {
  check_refuses({
      {"mine.fused.default(%x)", "[s, 8, 16]", "no rule for mine.fused.default"},
  });
  CHECK(verdict({"mine.fused.default(%w)", "[16, 32]", ""}) == "whole");
  const std::vector<std::string> targets = split_rule_targets();
  CHECK(std::is_sorted(targets.begin(), targets.end()));
  CHECK(std::count(targets.begin(), targets.end(), "aten.mm.default") == 1);
}
