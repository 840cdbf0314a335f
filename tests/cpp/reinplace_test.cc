#include <doctest/doctest.h>

#include <algorithm>

#include "dynaflow/graph.h"

using namespace dynaflow;

namespace {

/// The launched ops of a graph after the pass, as "target(%a, 2)"; views are left out.
std::vector<std::string> launched(const std::string& lines) {
  const Graph before =
      parse_graph("graph: test {batch=s, tokens=s}\n  %s = symbol() {min=2, hint=4}\n" + lines);
  const Graph graph = reinplace(before);
  check(graph);
  CHECK(parse_graph(print(graph)) == graph);
  CHECK(reinplace(graph) == graph);
  std::vector<std::string> result;
  const text::Section section = to_text(graph);
  for (const text::Line& line : section.lines) {
    if (line.find("out") == nullptr) continue;
    const text::Value* kind = line.find("kind");
    if (kind != nullptr && kind->as_name() == "view") continue;
    text::Line call;
    call.kind = line.kind;
    call.args = line.args;
    result.push_back(text::print(call));
  }
  return result;
}

using Calls = std::vector<std::string>;

constexpr const char* kInputs = R"(
  %x = input(0, tensor(float32, [s, 1, 8]))
  %at = input(1, tensor(int64, [1]))
  %cache = input(2, tensor(float32, [s, 16, 8]))
)";
constexpr const char* kUpdate =
    "  %new = aten.index_copy.default(%cache, 1, %at, %x) {out=[tensor(float32, [s, 16, 8])], "
    "out_target=\"aten.index_copy.out\", inplace_target=\"aten.index_copy_.default\"}\n";
constexpr const char* kRead = "  %r = aten.sin.default(%new) {out=[tensor(float32, [s, 16, 8])]}\n";
constexpr const char* kBack =
    "  %back = aten.copy_.default(%cache, %new, false) {out=[tensor(float32, [s, 16, 8])], alias=[%cache], "
    "writes=[%cache], functional=\"aten.copy.default\"}\n";
const std::string kPrefix = std::string(kInputs) + kUpdate + kRead;

}  // namespace

TEST_CASE("a cache is updated where it lies, and read there") {
  CHECK(launched(kPrefix + kBack + "  output(%r)\n") ==
        Calls{"aten.index_copy_.default(%cache, 1, %at, %x)", "aten.sin.default(%new)"});
}

TEST_CASE("a cache whose old contents are read later, or whose new ones the caller gets, is not") {
  const Calls kept{"aten.index_copy.default(%cache, 1, %at, %x)", "aten.sin.default(%new)"};
  const auto starts = [&](Calls calls) {
    return std::equal(kept.begin(), kept.end(), calls.begin(), calls.begin() + 2);
  };
  CHECK(starts(launched(kPrefix + "  %old = aten.cos.default(%cache) {out=[tensor(float32, [s, 16, 8])]}\n" +
                        kBack + "  output(%r, %old)\n")));
  CHECK(starts(launched(kPrefix + kBack + "  output(%r, %new)\n")));
  // A later change would show through %new.
  CHECK(starts(
      launched(kPrefix + kBack +
               "  %z = aten.zero_.default(%cache) {out=[tensor(float32, [s, 16, 8])], alias=[%cache], "
               "writes=[%cache]}\n  %late = aten.cos.default(%new) {out=[tensor(float32, [s, 16, 8])]}\n"
               "  output(%late)\n")));
}

TEST_CASE("a view of the cache that was made before the update is a reader of what it held") {
  const std::string view =
      "  %row = aten.select.int(%cache, 1, 0) {out=[tensor(float32, [s, 8], [128, 1])], kind=view, "
      "alias=[%cache]}\n";
  const std::string reader = "  %old = aten.cos.default(%row) {out=[tensor(float32, [s, 8])]}\n";
  const std::string rest = std::string(kBack) + "  output(%old)\n";
  CHECK(launched(kInputs + view + reader + kUpdate + rest).back() ==
        "aten.index_copy_.default(%cache, 1, %at, %x)");
  CHECK(launched(kInputs + view + kUpdate + reader + rest).front() ==
        "aten.index_copy.default(%cache, 1, %at, %x)");
}

TEST_CASE("updates in a row, and pointwise ones, go in place as a chain") {
  CHECK(launched(std::string(kInputs) + kUpdate +
                 "  %more = aten.add.Tensor(%new, 1, 1) {out=[tensor(float32, [s, 16, 8])], "
                 "out_target=\"aten.add.out\", inplace_target=\"aten.add_.Tensor\"}\n"
                 "  %back = aten.copy_.default(%cache, %more, false) {out=[tensor(float32, [s, 16, 8])], "
                 "alias=[%cache], writes=[%cache]}\n  output(none)\n") ==
        Calls{"aten.index_copy_.default(%cache, 1, %at, %x)", "aten.add_.Tensor(%cache, 1, 1)"});
}

TEST_CASE("an update of a slice of an update goes in place too") {
  CHECK(launched(R"(
  %k = input(0, tensor(float32, [s, 1, 8]))
  %cache = input(1, tensor(float32, [s, 16, 8]))
  %half = aten.mul.Tensor(%cache, 0.5) {out=[tensor(float32, [s, 16, 8])], inplace_target="aten.mul_.Tensor"}
  %slot = aten.slice.Tensor(%half, 1, 3, 4, 1) {out=[tensor(float32, [s, 1, 8], [128, 8, 1], 24)], kind=view, alias=[%half]}
  %sum = aten.add.Tensor(%slot, %k, 1) {out=[tensor(float32, [s, 1, 8])], inplace_target="aten.add_.Tensor"}
  %new = aten.slice_scatter.default(%half, %sum, 1, 3, 4, 1) {out=[tensor(float32, [s, 16, 8])]}
  %back = aten.copy_.default(%cache, %new, false) {out=[tensor(float32, [s, 16, 8])], alias=[%cache], writes=[%cache]}
  output(none)
)") == Calls{"aten.mul_.Tensor(%cache, 0.5)", "aten.add_.Tensor(%slot, %k, 1)"});
}

TEST_CASE("what is computed from other tensors is written to the argument by the out= form") {
  CHECK(launched(R"(
  %x = input(0, tensor(float32, [s, 8]))
  %w = parameter(1, tensor(float32, [8, 8]))
  %last = input(2, tensor(float32, [s, 8]))
  %a = aten.sin.default(%last) {out=[tensor(float32, [s, 8])], out_target="aten.sin.out"}
  %b = aten.mm.default(%x, %w) {out=[tensor(float32, [s, 8])], out_target="aten.mm.out"}
  %c = aten.copy_.default(%last, %b, false) {out=[tensor(float32, [s, 8])], alias=[%last], writes=[%last]}
  output(%a)
)") == Calls{"aten.sin.default(%last)", "aten.mm.out(%x, %w, %last)"});
}

TEST_CASE("rows copied into a slice of a slice are copied there") {
  const std::string lines = R"(
  %k = input(0, tensor(float32, [s, 1, 8]))
  %cache = input(1, tensor(float32, [s, 16, 8]))
  %rows = aten.slice.Tensor(%cache, 0, 0, s, 1) {out=[tensor(float32, [s, 16, 8])], kind=view, alias=[%cache]}
  %slot = aten.slice.Tensor(%rows, 1, 3, 4, 1) {out=[tensor(float32, [s, 1, 8], [128, 8, 1], 24)], kind=view, alias=[%rows]}
  %put = aten.copy.default(%slot, %k, false) {out=[tensor(float32, [s, 1, 8])], inplace_target="aten.copy_.default"}
  %inner = aten.slice_scatter.default(%rows, %put, 1, 3, 4, 1) {out=[tensor(float32, [s, 16, 8])]}
  %outer = aten.slice_scatter.default(%cache, %inner, 0, 0, s, 1) {out=[tensor(float32, [s, 16, 8])]}
  %r = aten.sin.default(%outer) {out=[tensor(float32, [s, 16, 8])]}
  %back = aten.copy_.default(%cache, %outer, false) {out=[tensor(float32, [s, 16, 8])], alias=[%cache], writes=[%cache]}
)";
  CHECK(launched(lines + "  output(%r)\n") ==
        Calls{"aten.copy_.default(%slot, %k, false)", "aten.sin.default(%outer)"});
  // Rows that somebody else reads too stay a tensor of their own.
  CHECK(
      launched(lines + "  %e = aten.exp.default(%put) {out=[tensor(float32, [s, 1, 8])]}\n  output(%r, %e)\n")
          .size() == 4);
}

TEST_CASE("a tensor that dies in an update of some of its rows is updated itself") {
  const std::string lines =
      std::string(kInputs) +
      "  %z = aten.zeros.default([s, 16, 8]) {out=[tensor(float32, [s, 16, 8])]}\n"
      "  %made = aten.index_copy.default(%z, 1, %at, %x) {out=[tensor(float32, [s, 16, 8])], "
      "inplace_target=\"aten.index_copy_.default\"}\n";
  CHECK(launched(lines + "  output(%made)\n").back() == "aten.index_copy_.default(%z, 1, %at, %x)");
  CHECK(launched(lines + "  output(%made, %z)\n").back() == "aten.index_copy.default(%z, 1, %at, %x)");
}

TEST_CASE("an argument is reduced where it lies") {
  const std::string lines = R"(
  %x = input(0, tensor(float32, [s, 8]))
  %sum = _c10d_functional.all_reduce.default(%x, "sum", "tp") {out=[tensor(float32, [s, 8])], kind=collective, group="tp"}
  %w = _c10d_functional.wait_tensor.default(%sum) {out=[tensor(float32, [s, 8])], kind=view, alias=[%sum]}
  %back = aten.copy_.default(%x, %w, false) {out=[tensor(float32, [s, 8])], alias=[%x], writes=[%x]}
  output(none)
)";
  CHECK(launched(lines) == Calls{"_c10d_functional.all_reduce.default(%x, \"sum\", \"tp\")"});
}
