#include "dynaflow/layout.h"

#include <doctest/doctest.h>

#include <algorithm>

using namespace dynaflow;

namespace {

/// A graph and its analysis, asked by name.
struct Analyzed {
  Graph graph;
  SplitAnalysis analysis;

  explicit Analyzed(const std::string& lines, bool batch = true)
      : graph(parse_graph(std::string("graph: test {") + (batch ? "batch=s, " : "") +
                          "tokens=s}\n  %s = symbol() {min=2, hint=4}\n  %n = symbol() {min=2, hint=4}\n" +
                          lines)),
        analysis(analyze_split(graph)) {}

  std::string layout(std::string_view name) const {
    for (size_t v = 0; v < graph.values.size(); ++v)
      if (graph.values[v].name == name) return print(analysis.layouts[v]);
    return "no such value";
  }
  size_t op(std::string_view name) const {
    for (size_t i = 0; i < graph.ops.size(); ++i)
      if (graph.ops[i].name == name) return i;
    throw GraphError("no such op");
  }
  SplitForm form(std::string_view name) const { return analysis.forms[op(name)]; }
  std::string reason(std::string_view name) const { return analysis.reasons[op(name)]; }
  int count(SplitForm form) const {
    return static_cast<int>(std::count(analysis.forms.begin(), analysis.forms.end(), form));
  }
};

std::string replaced(std::string text, std::string_view what, std::string_view with) {
  return text.replace(text.find(what), what.size(), with);
}

// One tensor-parallel layer: row numbers in the mask, rotary tables, grouped heads, two collectives and
// logits that are gathered over two ranks.
constexpr const char* kLayer = R"(
  %ids = input(0, tensor(int64, [s, n]))
  %padding = input(1, tensor(int64, [s, n]))
  %table = parameter(2, tensor(float32, [128, 64]))
  %scale = parameter(3, tensor(float32, [64]))
  %wq = parameter(4, tensor(float32, [32, 64]))
  %wk = parameter(5, tensor(float32, [16, 64]))
  %wo = parameter(6, tensor(float32, [64, 32]))
  %head = parameter(7, tensor(float32, [128, 64]))
  %freq = parameter(8, tensor(float32, [1, 1, 16]))
  %zero = constant(0, tensor(float32, []))
  %emb = aten.embedding.default(%table, %ids, -1, false, false) {out=[tensor(float32, [s, n, 64])]}
  %out_of_shard = aten.ge.Scalar(%ids, 128) {out=[tensor(bool, [s, n])]}
  %x = aten.index_put.default(%emb, [%out_of_shard], %zero, false) {out=[tensor(float32, [s, n, 64])]}
  %pos = aten.arange.default(n) {out=[tensor(int64, [n])]}
  %pos3 = aten.view.default(%pos, [1, n, 1]) {out=[tensor(int64, [1, n, 1])], kind=view, alias=[%pos]}
  %angle = aten.mul.Tensor(%pos3, %freq) {out=[tensor(float32, [1, n, 16])]}
  %cos = aten.cos.default(%angle) {out=[tensor(float32, [1, n, 16])]}
  %cos4 = aten.unsqueeze.default(%cos, 1) {out=[tensor(float32, [1, 1, n, 16])], kind=view, alias=[%cos]}
  %seen = aten._to_copy.default(%padding, dtype("bool")) {out=[tensor(bool, [s, n])]}
  %row = aten.arange.default(s) {out=[tensor(int64, [s])]}
  %row_all = aten.slice.Tensor(%row, 0, 0, 9223372036854775807, 1) {out=[tensor(int64, [s])], kind=view, alias=[%row]}
  %row2 = aten.unsqueeze.default(%row_all, 1) {out=[tensor(int64, [s, 1])], kind=view, alias=[%row_all]}
  %row4 = aten.view.default(%row2, [s, 1, 1, 1]) {out=[tensor(int64, [s, 1, 1, 1])], kind=view, alias=[%row2]}
  %key = aten.view.default(%pos, [1, 1, 1, n]) {out=[tensor(int64, [1, 1, 1, n])], kind=view, alias=[%pos]}
  %mask = aten.index.Tensor(%seen, [%row4, %key]) {out=[tensor(bool, [s, 1, 1, n])]}
  %masks = aten.expand.default(%mask, [s, 1, n, n], false) {out=[tensor(bool, [s, 1, n, n], [n, n, 0, 1])], kind=view, alias=[%mask]}
  %bias = aten.where.self(%masks, %zero, %zero) {out=[tensor(float32, [s, 1, n, n])]}
  %sq = aten.pow.Tensor_Scalar(%x, 2) {out=[tensor(float32, [s, n, 64])]}
  %mean = aten.mean.dim(%sq, [-1], true, none) {out=[tensor(float32, [s, n, 1])]}
  %norm = aten.rsqrt.default(%mean) {out=[tensor(float32, [s, n, 1])]}
  %xn = aten.mul.Tensor(%x, %norm) {out=[tensor(float32, [s, n, 64])]}
  %h = aten.mul.Tensor(%scale, %xn) {out=[tensor(float32, [s, n, 64])]}
  %rows = aten.view.default(%h, [s*n, 64]) {out=[tensor(float32, [s*n, 64])], kind=view, alias=[%h]}
  %wqt = aten.t.default(%wq) {out=[tensor(float32, [64, 32], [1, 64])], kind=view, alias=[%wq]}
  %wkt = aten.t.default(%wk) {out=[tensor(float32, [64, 16], [1, 64])], kind=view, alias=[%wk]}
  %qm = aten.mm.default(%rows, %wqt) {out=[tensor(float32, [s*n, 32])]}
  %km = aten.mm.default(%rows, %wkt) {out=[tensor(float32, [s*n, 16])]}
  %q3 = aten.view.default(%qm, [s, n, -1, 16]) {out=[tensor(float32, [s, n, 2, 16])], kind=view, alias=[%qm]}
  %k3 = aten.view.default(%km, [s, n, -1, 16]) {out=[tensor(float32, [s, n, 1, 16])], kind=view, alias=[%km]}
  %q = aten.transpose.int(%q3, 1, 2) {out=[tensor(float32, [s, 2, n, 16], [32*n, 16, 32, 1])], kind=view, alias=[%q3]}
  %k = aten.transpose.int(%k3, 1, 2) {out=[tensor(float32, [s, 1, n, 16])], kind=view, alias=[%k3]}
  %qr = aten.mul.Tensor(%q, %cos4) {out=[tensor(float32, [s, 2, n, 16], [32*n, 16, 32, 1])]}
  %k5 = aten.unsqueeze.default(%k, 2) {out=[tensor(float32, [s, 1, 1, n, 16])], kind=view, alias=[%k]}
  %k2 = aten.expand.default(%k5, [s, 1, 2, n, 16], false) {out=[tensor(float32, [s, 1, 2, n, 16], [16*n, 16*n, 0, 16, 1])], kind=view, alias=[%k5]}
  %kr = aten.view.default(%k2, [s, 2, n, 16]) {out=[tensor(float32, [s, 2, n, 16], [16*n, 0, 16, 1])], kind=view, alias=[%k2]}
  %att, %lse = aten._scaled_dot_product_flash_attention_for_cpu.default(%qr, %kr, %kr, 0.0, false, %bias, none) {out=[tensor(float32, [s, 2, n, 16], [32*n, 16, 32, 1]), tensor(float32, [s, 2, n])]}
  %at = aten.transpose.int(%att, 1, 2) {out=[tensor(float32, [s, n, 2, 16])], kind=view, alias=[%att]}
  %a = aten.view.default(%at, [s*n, 32]) {out=[tensor(float32, [s*n, 32])], kind=view, alias=[%at]}
  %wot = aten.t.default(%wo) {out=[tensor(float32, [32, 64], [1, 32])], kind=view, alias=[%wo]}
  %o = aten.mm.default(%a, %wot) {out=[tensor(float32, [s*n, 64])]}
  %o3 = aten._unsafe_view.default(%o, [s, n, 64]) {out=[tensor(float32, [s, n, 64])], kind=view, alias=[%o]}
  %sum = _c10d_functional.all_reduce.default(%o3, "sum", "0") {out=[tensor(float32, [s, n, 64])], kind=collective, group="0"}
  %done = _c10d_functional.wait_tensor.default(%sum) {out=[tensor(float32, [s, n, 64])], kind=view, alias=[%sum]}
  %y = aten.add.Tensor(%x, %done, 1) {out=[tensor(float32, [s, n, 64])]}
  %last = aten.select.int(%y, 1, -1) {out=[tensor(float32, [s, 64], [64*n, 1], 64*n - 64)], kind=view, alias=[%y]}
  %ht = aten.t.default(%head) {out=[tensor(float32, [64, 128], [1, 64])], kind=view, alias=[%head]}
  %logits = aten.mm.default(%last, %ht) {out=[tensor(float32, [s, 128])]}
  %all = _c10d_functional.all_gather_into_tensor.default(%logits, 2, "0") {out=[tensor(float32, [2*s, 128])], kind=collective, group="0"}
  %got = _c10d_functional.wait_tensor.default(%all) {out=[tensor(float32, [2*s, 128])], kind=view, alias=[%all]}
  %g0, %g1 = aten.split.Tensor(%got, s, 0) {out=[tensor(float32, [s, 128]), tensor(float32, [s, 128], [128, 1], 128*s)], kind=view, alias=[%got, %got]}
  %result = aten.cat.default([%g0, %g1], 1) {out=[tensor(float32, [s, 256])]}
  output(%result)
)";

constexpr const char* kGathered = R"(
  %x = input(0, tensor(float32, [s, 16]))
  %a = aten.relu.default(%x) {out=[tensor(float32, [s, 16])]}
  %all = _c10d_functional.all_gather_into_tensor.default(%a, 2, "0") {out=[tensor(float32, [2*s, 16])], kind=collective, group="0"}
  %got = _c10d_functional.wait_tensor.default(%all) {out=[tensor(float32, [2*s, 16])], kind=view, alias=[%all]}
  %b = aten.neg.default(%got) {out=[tensor(float32, [2*s, 16])]}
  %p, %q = aten.split.Tensor(%b, s, 0) {out=[tensor(float32, [s, 16]), tensor(float32, [s, 16], [16, 1], 16*s)], kind=view, alias=[%b, %b]}
  %c = aten.add.Tensor(%p, %q, 1) {out=[tensor(float32, [s, 16])]}
  output(%c)
)";

}  // namespace

TEST_CASE("a tensor-parallel Llama layer splits from the embedding to the logits") {
  const Analyzed layer(kLayer);
  CHECK(layer.count(SplitForm::kMerged) == 0);
  CHECK(layer.count(SplitForm::kWhole) == 10);  // positions, rotary tables and transposed weights
  for (const char* shared : {"pos", "angle", "cos4", "key", "wqt"})
    CHECK(layer.form(shared) == SplitForm::kWhole);
  CHECK(layer.layout("qm") == "shard(0, inner=n)");
  CHECK(layer.layout("row4") == "coordinate(0)");
  CHECK(layer.layout("mask") == "shard(0)");
  CHECK(layer.layout("all") == "shard(0, outer=2)");
  CHECK(layer.layout("result") == "shard(0)");
}

TEST_CASE("without a batch symbol every op runs once") {
  const Analyzed layer(kLayer, false);
  CHECK(layer.count(SplitForm::kWhole) == static_cast<int>(layer.graph.ops.size()));
}

TEST_CASE("row numbers that are used as data are counted over the whole batch") {
  const std::string graph = R"(
  %x = input(0, tensor(float32, [s, 16]))
  %row = aten.arange.default(s) {out=[tensor(int64, [s])]}
  %same = aten.add.Tensor(%row, 0, 1) {out=[tensor(int64, [s])]}
  %picked = aten.index.Tensor(%x, [%same]) {out=[tensor(float32, [s, 16])]}
  %more = aten.mul.Tensor(%picked, 2) {out=[tensor(float32, [s, 16])]}
  output(%more)
)";
  const Analyzed local(graph);
  CHECK(local.count(SplitForm::kSplit) == 4);

  // The same row numbers are also doubled: that needs the true ones, and so does everybody who shares them.
  const Analyzed doubled(replaced(graph, "  output(%more)",
                                  "  %twice = aten.mul.Tensor(%same, 2) {out=[tensor(int64, [s])]}\n"
                                  "  output(%more, %twice)"));
  CHECK(doubled.form("row") == SplitForm::kMerged);
  CHECK(doubled.reason("row") == "its row numbers are used as data by 'twice'");
  CHECK(doubled.layout("row") == "shard(0)");
  CHECK(doubled.form("twice") == SplitForm::kSplit);
  CHECK(doubled.form("picked") == SplitForm::kMerged);
  CHECK(doubled.reason("picked") == "it picks rows of %x from the whole batch");
  CHECK(doubled.form("more") == SplitForm::kSplit);

  const Analyzed returned(replaced(graph, "output(%more)", "output(%more, %same)"));
  CHECK(returned.reason("row") == "its row numbers are used as data by the caller");

  const Analyzed cast(replaced(graph, "aten.add.Tensor(%row, 0, 1)", "aten.add.Tensor(%row, 1, 1)"));
  CHECK(cast.reason("row") == "its row numbers are used as data by 'same'");
}

TEST_CASE("rows of a shared table are picked by true row numbers, and the picking still splits") {
  const Analyzed picked(R"(
  %table = input(0, tensor(float32, [n, 16]))
  %row = aten.arange.default(s) {out=[tensor(int64, [s])]}
  %rows = aten.unsqueeze.default(%row, 1) {out=[tensor(int64, [s, 1])], kind=view, alias=[%row]}
  %mine = aten.index.Tensor(%table, [%rows]) {out=[tensor(float32, [s, 1, 16])]}
  output(%mine)
)");
  CHECK(picked.form("row") == SplitForm::kMerged);
  CHECK(picked.layout("rows") == "shard(0)");
  CHECK(picked.form("mine") == SplitForm::kSplit);
}

TEST_CASE("rows in several blocks never cross between parts and the whole") {
  const Analyzed inside(kGathered);
  CHECK(inside.count(SplitForm::kMerged) == 0);

  // Returned as it is, the gathered tensor must be written in one piece.
  const Analyzed returned(replaced(kGathered, "output(%c)", "output(%b)"));
  CHECK(returned.form("b") == SplitForm::kMerged);
  CHECK(returned.reason("b") ==
        "the batch is not outermost in dimension 0 of %b, and the caller reads its storage as a whole");
  CHECK(returned.form("got") == SplitForm::kMerged);
  CHECK(returned.form("all") == SplitForm::kMerged);
  CHECK(returned.reason("all") ==
        "the batch is not outermost in dimension 0 of %all, and 'b' reads its storage as a whole");
  CHECK(returned.form("a") == SplitForm::kSplit);
  // What reads the two blocks apart cannot be split any more, and what adds them can.
  CHECK(returned.form("p") == SplitForm::kMerged);
  CHECK(returned.layout("p") == "shard(0)");

  // Only a view of a block is read whole: its storage still has two blocks.
  const Analyzed viewed(replaced(kGathered, "output(%c)", "output(%c, %p)"));
  CHECK(viewed.form("p") == SplitForm::kMerged);
  CHECK(viewed.form("b") == SplitForm::kMerged);

  // A shared table repeated in several blocks: no part of it is one slice.
  const Analyzed repeated(R"(
  %w = parameter(0, tensor(float32, [16]))
  %e = aten.expand.default(%w, [4, s, 16], false) {out=[tensor(float32, [4, s, 16], [0, 0, 1])], kind=view, alias=[%w]}
  %v = aten.view.default(%e, [4*s, 16]) {out=[tensor(float32, [4*s, 16], [0, 1])], kind=view, alias=[%e]}
  %y = aten.neg.default(%v) {out=[tensor(float32, [4*s, 16])]}
  output(%y)
)");
  CHECK(repeated.form("e") == SplitForm::kSplit);
  CHECK(repeated.reason("v") ==
        "the batch is not outermost in dimension 0 of %v, whose storage is not made in parts");
}

TEST_CASE("rows that are not outermost in memory are not cut out of it") {
  const std::string graph = R"(
  %x = input(0, tensor(float32, [8, s, 16]))
  %a = aten.relu.default(%x) {out=[tensor(float32, [8, s, 16])]}
  %b = aten.permute.default(%a, [1, 0, 2]) {out=[tensor(float32, [s, 8, 16], [16, 16*s, 1])], kind=view, alias=[%a]}
  %c = aten.clone.default(%b, memory_format("contiguous_format")) {out=[tensor(float32, [s, 8, 16])]}
  %d = aten.neg.default(%c) {out=[tensor(float32, [s, 8, 16])]}
  output(%d)
)";
  const Analyzed sequence_first(graph);
  CHECK(sequence_first.form("a") == SplitForm::kMerged);
  CHECK(sequence_first.reason("a") ==
        "the batch is not outermost in the memory of %x, which is not made in parts");
  CHECK(sequence_first.form("c") == SplitForm::kMerged);
  CHECK(sequence_first.form("d") == SplitForm::kSplit);

  const Analyzed batch_first(replaced(graph, "[8, s, 16]))", "[8, s, 16], [16, 128, 1]))"));
  CHECK(batch_first.form("a") == SplitForm::kSplit);
  CHECK(batch_first.count(SplitForm::kMerged) == 0);
}

TEST_CASE("ops with side effects run merged, and their storage exists once") {
  const Analyzed random(R"(
  %x = input(0, tensor(float32, [s, 16]))
  %r = aten.bernoulli.p(%x, 0.5) {out=[tensor(float32, [s, 16])], random=true}
  %c = mine.prefix.default(%x) {out=[tensor(float32, [s, 16])], reads_context=true}
  %n0 = aten.item.default(%x) {out=[tensor(float32, [])], host_sync=true}
  %y = aten.mul.Tensor(%r, %n0) {out=[tensor(float32, [s, 16])]}
  output(%y)
)");
  CHECK(random.reason("r") == "it draws random numbers");
  CHECK(random.form("c") == SplitForm::kSplit);
  CHECK(random.reason("n0") == "it makes the host wait for the device");
  CHECK(random.layout("n0") == "whole");
  CHECK(random.form("y") == SplitForm::kSplit);

  const Analyzed in_place(R"(
  %x = input(0, tensor(float32, [s, 16]))
  %a = aten.relu.default(%x) {out=[tensor(float32, [s, 16])]}
  %v = aten.view.default(%a, [s*16]) {out=[tensor(float32, [s*16])], kind=view, alias=[%a]}
  %w = aten.relu_.default(%v) {out=[tensor(float32, [s*16])], alias=[%v], writes=[%v]}
  %b = aten.neg.default(%a) {out=[tensor(float32, [s, 16])]}
  output(%b)
)");
  CHECK(in_place.reason("w") == "it changes %v in place");
  CHECK(in_place.reason("a") == "'w' changes its result in place");
  CHECK(in_place.form("v") == SplitForm::kMerged);
  CHECK(in_place.form("b") == SplitForm::kSplit);
}

TEST_CASE("parts change their own rows in place, and what they share runs once") {
  const Analyzed caches(R"(
  %x = input(0, tensor(float32, [s, 16]))
  %pos = input(1, tensor(int64, [1]))
  %cache = input(2, tensor(float32, [s, 32, 16]))
  %steps = input(3, tensor(int64, []))
  %shared = input(4, tensor(float32, [64, 16]))
  %slots = input(5, tensor(int64, [s]))
  %new = aten.unsqueeze.default(%x, 1) {out=[tensor(float32, [s, 1, 16])], kind=view, alias=[%x]}
  %w = aten.index_copy_.default(%cache, 1, %pos, %new) {out=[tensor(float32, [s, 32, 16])], alias=[%cache], writes=[%cache], functional="aten.index_copy.default"}
  %n = aten.add_.Tensor(%steps, 1, 1) {out=[tensor(int64, [])], alias=[%steps], writes=[%steps], functional="aten.add.Tensor"}
  %p = aten.index_put_.default(%shared, [%slots], %x, false) {out=[tensor(float32, [64, 16])], alias=[%shared], writes=[%shared], functional="aten.index_put.default"}
  %m = aten.mul.out(%x, %x, %cache) {out=[tensor(float32, [s, 32, 16])], alias=[%cache], writes=[%cache], functional="aten.mul.Tensor", name="odd"}
  output(%w)
)");
  CHECK(caches.form("w") == SplitForm::kSplit);
  CHECK(caches.layout("w") == "shard(0)");
  CHECK(caches.form("n") == SplitForm::kWhole);
  CHECK(caches.reason("p") == "every part would write to %shared");
  CHECK(caches.form("odd") == SplitForm::kMerged);
}

TEST_CASE("a merged op on values without clear rows leaves a mixed value, which nobody splits") {
  const Analyzed mixed(R"(
  %x = input(0, tensor(float32, [s, 16]))
  %t = aten.t.default(%x) {out=[tensor(float32, [16, s], [1, 16])], kind=view, alias=[%x]}
  %gram = aten.mm.default(%x, %t) {out=[tensor(float32, [s, s])]}
  %soft = aten._softmax.default(%gram, -1, false) {out=[tensor(float32, [s, s])]}
  %y = aten.mm.default(%soft, %x) {out=[tensor(float32, [s, 16])]}
  %z = aten.relu.default(%y) {out=[tensor(float32, [s, 16])]}
  output(%z)
)");
  CHECK(mixed.layout("gram") == "mixed");
  CHECK(mixed.reason("soft") == "no rows of %gram belong to one part alone");
  CHECK(mixed.form("y") == SplitForm::kMerged);
  CHECK(mixed.layout("y") == "shard(0)");
  CHECK(mixed.form("z") == SplitForm::kSplit);
}
