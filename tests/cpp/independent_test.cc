#include <doctest/doctest.h>

#include <algorithm>

#include "dynaflow/layout.h"
#include "dynaflow/verify.h"
#include "random.h"

using namespace dynaflow;  // NOLINT(google-build-using-namespace)

namespace {

// A mixture of experts: rows are sorted by expert, counted, multiplied in groups and put back.
constexpr const char* kExperts = R"(graph: experts {batch=s, tokens=s}
  %s = symbol() {min=2, hint=4}
  %x = input(0, tensor(float32, [s, 16]))
  %gate = parameter(1, tensor(float32, [16, 4]))
  %w = parameter(2, tensor(float32, [4, 16, 16]))
  %h = aten.relu.default(%x) {out=[tensor(float32, [s, 16])], out_target="aten.relu.out"}
  %scores = aten.mm.default(%h, %gate) {out=[tensor(float32, [s, 4])], out_target="aten.mm.out", module="moe", type="Moe"}
  %expert = aten.argmax.default(%scores, -1, false) {out=[tensor(int64, [s])], module="moe", type="Moe"}
  %sorted, %perm = aten.sort.default(%expert, -1, false) {out=[tensor(int64, [s]), tensor(int64, [s])], module="moe", type="Moe"}
  %rows = aten.index.Tensor(%h, [%perm]) {out=[tensor(float32, [s, 16])], module="moe", type="Moe"}
  %counts = aten.bincount.default(%sorted, none, 4) {out=[tensor(int64, [4])], module="moe", type="Moe"}
  %pairs = aten.view.default(%counts, [2, 2]) {out=[tensor(int64, [2, 2])], kind=view, alias=[%counts], module="moe", type="Moe"}
  %y = mine.grouped.default(%rows, %w, %pairs) {out=[tensor(float32, [s, 16])], module="moe", type="Moe"}
  %base = aten.zeros_like.default(%h) {out=[tensor(float32, [s, 16])], module="moe", type="Moe"}
  %out = aten.index_add.default(%base, 0, %perm, %y, 1) {out=[tensor(float32, [s, 16])], module="moe", type="Moe"}
  %z = aten.neg.default(%out) {out=[tensor(float32, [s, 16])], out_target="aten.neg.out"}
  output(%z)
)";

std::string replaced(std::string text, std::string_view what, std::string_view with) {
  return text.replace(text.find(what), what.size(), with);
}

/// The graph cut around its module `moe`, whose rows are independent unless `word` is false.
struct Cut {
  PartitionPtr partition;

  explicit Cut(const std::string& graph = kExperts, bool word = true)
      : partition(dynaflow::partition(std::make_shared<const Graph>(parse_graph(graph)),
                                      {split_module("moe", {}, word)})) {}

  const Graph& graph() const { return *partition->graph; }
  size_t value(std::string_view name) const {
    const auto& values = graph().values;
    return static_cast<size_t>(
        std::find_if(values.begin(), values.end(), [&](const Value& v) { return v.name == name; }) -
        values.begin());
  }
  std::string layout(std::string_view name) const { return print(partition->split.layouts.at(value(name))); }
  OpId op(std::string_view value_name) const { return graph().values.at(value(value_name)).op; }
  std::string reason(std::string_view name) const { return partition->split.reasons.at(op(name)); }
  bool split(std::string_view name) const { return partition->split.forms.at(op(name)) == SplitForm::kSplit; }
  int merged() const {
    const auto& forms = partition->split.forms;
    return static_cast<int>(std::count(forms.begin(), forms.end(), SplitForm::kMerged));
  }
  std::string asserted() const {
    std::string names;
    for (OpId id : partition->split.regions.at(0).asserted)
      names += (names.empty() ? "" : " ") + graph().ops[id].name;
    return names;
  }
  const std::string& refusal() const { return partition->split.regions.at(0).refusal; }

  PlanPtr plan(int parts) const {
    Scheduler s(partition, "test", [](std::string_view) -> int64_t { return 8; });
    s.split(parts);
    s.run_sequentially();
    return lower(*s.finish());
  }
};

/// Ops that split, that no rule splits, that count and that draw, in two modules and outside of them.
std::string random_graph(testing::Random& random, int ops) {
  std::string source =
      "graph: g {batch=s, tokens=s}\n  %s = symbol() {min=2, hint=8}\n"
      "  %v0 = input(0, tensor(float32, [s, 8]))\n  %c0 = input(1, tensor(float32, [4]))\n";
  const std::string rows = "{out=[tensor(float32, [s, 8])]";
  std::string last = "0";
  for (int i = 1; i <= ops; ++i) {
    const std::string id = std::to_string(i);
    const std::string v = "%v" + std::to_string(random.between(0, i - 1));
    const std::string c = "%c" + std::to_string(random.between(0, i - 1));
    const std::string own = random.between(0, 4) == 0 ? ""
                            : random.coin()           ? ", module=\"m0\""
                                                      : ", module=\"m1\"";
    const std::string kinds[] = {
        "aten.relu.default(" + v + ") " + rows + ", out_target=\"aten.relu.out\"" + own,
        "mine.sort.default(" + v + ") " + rows + own,
        "mine.spread.default(" + v + ", " + c + ") " + rows + own,
        "aten.view.default(" + v + ", [s, 8]) " + rows + ", kind=view, alias=[" + v + "]" + own,
        "aten.bernoulli.p(" + v + ", 0.5) " + rows + ", random=true" + own,
        "_c10d_functional.all_reduce.default(" + v + ", \"sum\", \"g\") " + rows +
            ", kind=collective, group=\"g\"" + own,
        "mine.change_.default(" + v + ", " + c + ") " + rows + ", alias=[" + v + "], writes=[" + v + "]" +
            own,
    };
    // One in two has rows by a word alone; every step also counts something.
    const int64_t pick = random.coin() ? random.between(1, 2) : random.between(0, 6);
    source += "  %v" + id + " = " + kinds[pick] + "}\n  %c" + id + " = mine.count.default(%v" + id + ", " +
              c + ") {out=[tensor(float32, [4])]" + own + "}\n";
    last = id;
  }
  const std::string counts = random.between(0, 3) == 0 ? ", %c" + last : "";
  return source + "  output(%v" + last + counts + ")\n";
}

}  // namespace

TEST_CASE("on somebody's word a mixture of experts splits, and what has no rows is private to each part") {
  const Cut bare(kExperts, false);
  CHECK(bare.merged() == 5);
  CHECK(bare.reason("sorted").find("mixes the rows") != std::string::npos);
  CHECK(bare.reason("y") == "no rule for mine.grouped.default");

  const Cut cut;
  CHECK(cut.merged() == 0);
  CHECK(cut.refusal() == "");
  for (const char* own : {"sorted", "perm", "rows", "counts", "pairs", "y"})
    CHECK(cut.layout(own) == "private");
  for (const char* rows : {"scores", "expert", "base", "out", "z"}) CHECK(cut.layout(rows) == "shard(0)");
  CHECK(cut.asserted() == "sorted rows counts pairs y out");
}

TEST_CASE("what a region gives away must have rows, else it does not split and says who reads it") {
  const Cut returned(replaced(kExperts, "output(%z)", "output(%z, %counts)"));
  CHECK(returned.merged() == 5);
  CHECK(returned.asserted() == "");
  CHECK(returned.refusal() ==
        "%counts has no rows for each part, and the caller reads it outside of the region");
  CHECK(returned.reason("sorted").find("that the rows of 'moe' are independent does not help: %counts") !=
        std::string::npos);

  const Cut used(
      replaced(kExperts, "  output(%z)",
               "  %load = aten.sum.default(%pairs) {out=[tensor(int64, [])]}\n  output(%z, %load)"));
  CHECK(used.refusal() == "%counts has no rows for each part, and 'load' reads it outside of the region");
  CHECK(used.layout("z") == "shard(0)");

  // Sorted rows have the shape of rows: whether they are rows of the batch, only a run can tell.
  CHECK(Cut(replaced(kExperts, "output(%z)", "output(%z, %rows)")).layout("rows") == "shard(0)");
}

TEST_CASE("effects and collectives run as if they were outside of the region") {
  const std::string noise = replaced(replaced(kExperts, "  %scores =",
                                              "  %noise = aten.rand_like.default(%h) {out=[tensor(float32, "
                                              "[s, 16])], random=true, module=\"moe\", "
                                              "type=\"Moe\"}\n  %scores ="),
                                     "aten.mm.default(%h,", "aten.mm.default(%noise,");
  const Cut drawn(noise);
  CHECK(drawn.reason("noise") == "it draws random numbers");
  CHECK(drawn.merged() == 1);
  CHECK(drawn.layout("noise") == "shard(0)");

  const Cut late(replaced(kExperts, "mine.grouped.default(%rows, %w, %pairs) {",
                          "mine.grouped.default(%rows, %w, %pairs) {random=true, "));
  CHECK(late.refusal().find("%pairs") == std::string::npos);
  CHECK(late.refusal() == "%counts has no rows for each part, and 'y' reads it outside of the region");

  const Cut reduced(replaced(
      replaced(kExperts, "  %z =",
               "  %sum = _c10d_functional.all_reduce.default(%out, \"sum\", \"0\") {out=[tensor(float32, [s, "
               "16])], kind=collective, group=\"0\", module=\"moe\", type=\"Moe\"}\n  %z ="),
      "neg.default(%out)", "neg.default(%sum)"));
  CHECK(reduced.merged() == 0);
  CHECK(reduced.layout("out") == "shard(0)");
  CHECK(reduced.asserted() == "sorted rows counts pairs y out");
}

TEST_CASE("what a region makes and changes in place, each part changes for itself") {
  const std::string changed = replaced(
      replaced(kExperts, "%counts = aten.bincount.default(%sorted, none, 4) {out=[tensor(int64, [4])],",
               "%none = aten.zeros.default([4]) {out=[tensor(int64, [4])], module=\"moe\", type=\"Moe\"}\n"
               "  %counts = mine.count_.default(%none, %sorted) {out=[tensor(int64, [4])], alias=[%none], "
               "writes=[%none],"),
      "aten.index_add.default(%base, 0, %perm, %y, 1) {out=[tensor(float32, [s, 16])],",
      "aten.index_add_.default(%base, 0, %perm, %y, 1) {out=[tensor(float32, [s, 16])], alias=[%base], "
      "writes=[%base],");
  const Cut cut(changed);
  CHECK(cut.merged() == 0);
  CHECK(cut.layout("none") == "private");
  CHECK(cut.layout("counts") == "private");
  CHECK(cut.layout("out") == "shard(0)");
  const auto violation = verify(*cut.plan(2));
  CHECK_MESSAGE(!violation, (violation ? violation->message : ""));

  // What was there before is everybody's, and is changed for all rows at once.
  const Cut shared(replaced(changed, "writes=[%base]", "writes=[%base, %h]"));
  CHECK(shared.reason("out").find("in place") != std::string::npos);
  CHECK_FALSE(shared.split("h"));
  const Cut given(replaced(changed, "output(%z)", "output(%z, %none)"));
  CHECK(given.refusal() == "%none has no rows for each part, and the caller reads it outside of the region");
  CHECK(given.reason("counts").find("in place") != std::string::npos);
}

TEST_CASE("a part counts the rows that its region numbers, and is given the numbers of others") {
  const std::string numbered = replaced(
      replaced(kExperts, "  %rows =",
               "  %token = aten.arange.default(s) {out=[tensor(int64, [s])], module=\"moe\", type=\"Moe\"}\n"
               "  %at = aten.index.Tensor(%token, [%perm]) {out=[tensor(int64, [s])], module=\"moe\", "
               "type=\"Moe\"}\n  %rows ="),
      "index.Tensor(%h, [%perm])", "index.Tensor(%h, [%at])");
  const Cut inside(numbered);
  CHECK(inside.split("token"));
  CHECK(inside.layout("at") == "private");
  CHECK(inside.asserted() == "sorted token at rows counts pairs y out");

  const Cut outside(replaced(numbered, "[tensor(int64, [s])], module=\"moe\", type=\"Moe\"}\n  %at",
                             "[tensor(int64, [s])]}\n  %at"));
  CHECK(outside.reason("token") == "its row numbers are used as data by 'at'");
  CHECK(outside.layout("token") == "shard(0)");
  CHECK(outside.layout("at") == "private");

  // Doubled in the region and given away: the word is that these are rows too, which a run will deny.
  const Cut doubled(
      replaced(replaced(numbered, "  %z =",
                        "  %twice = aten.mul.Tensor(%token, 2) {out=[tensor(int64, [s])], module=\"moe\", "
                        "type=\"Moe\"}\n  %z ="),
               "output(%z)", "output(%z, %twice)"));
  CHECK(doubled.split("token"));
  CHECK(doubled.asserted().find("twice") != std::string::npos);
}

TEST_CASE("values that no part could slice are private too, but are not read from outside") {
  const std::string pairwise = R"(graph: pairwise {batch=s, tokens=s}
  %s = symbol() {min=2, hint=4}
  %x = input(0, tensor(float32, [s, 16]))
  %t = aten.t.default(%x) {out=[tensor(float32, [16, s], [1, 16])], kind=view, alias=[%x]}
  %gram = aten.mm.default(%x, %t) {out=[tensor(float32, [s, s])], module="moe", type="Moe"}
  %soft = aten._softmax.default(%gram, -1, false) {out=[tensor(float32, [s, s])], module="moe", type="Moe"}
  %y = aten.mm.default(%soft, %x) {out=[tensor(float32, [s, 16])], module="moe", type="Moe"}
  output(%y)
)";
  const Cut inside(pairwise);
  CHECK(inside.merged() == 0);
  CHECK(inside.layout("gram") == "private");
  CHECK(inside.layout("y") == "shard(0)");
  CHECK_FALSE(verify(*inside.plan(2)));

  const Cut given(replaced(pairwise,
                           "%gram = aten.mm.default(%x, %t) {out=[tensor(float32, [s, s])], module="
                           "\"moe\", type=\"Moe\"}",
                           "%gram = aten.mm.default(%x, %t) {out=[tensor(float32, [s, s])]}"));
  CHECK(given.reason("soft") == "no rows of %gram belong to one part alone");
}

TEST_CASE("each part has private values of its own, and using another part's is found") {
  const Cut cut;
  const PlanPtr plan = cut.plan(2);
  CHECK_FALSE(verify(*plan));
  const auto slots_of = [&](const char* name) {
    std::vector<SlotId> slots;
    for (SlotId id = 0; id < static_cast<SlotId>(plan->slots.size()); ++id)
      if (plan->slots[id].value == static_cast<ValueId>(cut.value(name))) slots.push_back(id);
    return slots;
  };
  const std::vector<SlotId> own = slots_of("counts");
  REQUIRE(own.size() == 2);
  CHECK(plan->slots[own[0]].last_part == 1);
  CHECK(plan->slots[own[1]].first_part == 1);
  CHECK(plan->slots[own[0]].index != plan->slots[own[1]].index);

  // The grouped product reads a view of the counts.
  const std::vector<SlotId> read = slots_of("pairs");
  REQUIRE(read.size() == 2);
  Plan swapped = *plan;
  for (Run& run : swapped.runs)
    for (OpLaunch& launch : run.launches)
      std::replace(launch.inputs.begin(), launch.inputs.end(), read[1], read[0]);
  const auto violation = verify(swapped);
  REQUIRE(violation);
  CHECK(violation->kind == Violation::Kind::kGeometry);
  CHECK(violation->message.find("which is %pairs on parts [0, 1)") != std::string::npos);
}

TEST_CASE("a region that is cut in two runs on the same parts in both") {
  const auto graph = std::make_shared<const Graph>(parse_graph(kExperts));
  const PartitionPtr cut = partition(graph, {split_func({"grouped"}), split_module("moe", {}, true)});
  const auto find = [&](const char* op) {
    for (SegmentId id = 0; id < static_cast<SegmentId>(cut->segments.size()); ++id)
      for (OpId member : cut->segments[id].ops)
        if (graph->ops[member].name == op) return id;
    return SegmentId{kNoId};
  };
  REQUIRE(find("rows") != find("y"));
  const auto run = [&](bool together) {
    Scheduler s(cut, "test", [](std::string_view) -> int64_t { return 8; });
    s.split(2);
    for (SegmentId id = 0; id < static_cast<SegmentId>(cut->segments.size()); ++id) {
      const Segment* segment = &cut->segments[id];
      if (together && id == find("y")) {
        s.execute(std::vector<ReadyOp>{{segment, id, 0, 1}, {segment, id, 1, 2}});
      } else {
        for (int part = 0; part < 2; ++part) s.execute(ReadyOp(segment, id, part, part + 1));
      }
    }
    return lower(*s.finish());
  };
  CHECK_FALSE(verify(*run(false)));
  CHECK_THROWS_WITH_AS(
      run(true), doctest::Contains("run its segment and those that read it on the same parts"), PlanError);
}

TEST_CASE("the independent regions survive printing and reading") {
  const Cut cut;
  const text::Document document = text::parse(print(*cut.partition));
  const PartitionPtr again = partition_from_text(document.at("partition"), cut.partition->graph);
  CHECK(again->split.regions == cut.partition->split.regions);
  CHECK(again->split.layouts == cut.partition->split.layouts);
  CHECK(print(*again) == print(*cut.partition));
  const auto read = [&](const std::string& line) {
    return partition_from_text(text::parse("partition:\n  " + line + "\n").at("partition"),
                               cut.partition->graph);
  };
  CHECK_THROWS_WITH_AS(read("independent(\"moe\", [\"rows\", \"rows\"])"),
                       doctest::Contains("each in one region only"), ParseError);
  CHECK_THROWS_WITH_AS(read("independent(\"moe\", [\"nobody\"])"),
                       doctest::Contains("the name of an op of the graph"), ParseError);
  CHECK_THROWS_WITH_AS(read("dependent(\"moe\", [\"rows\"])"), doctest::Contains("independent"), ParseError);
}

TEST_CASE("whatever is called independent, no plan lets parts meet in memory") {
  int privates = 0;
  int refused = 0;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    CAPTURE(seed);
    testing::Random random(seed);
    const auto graph = std::make_shared<const Graph>(
        parse_graph(random_graph(random, static_cast<int>(random.between(2, 9)))));
    const PartitionPtr cut =
        partition(graph, {split_func({"all_reduce"}, {"network"}), split_module("m0", {}, true),
                          split_module("m1", {}, random.coin())});
    Scheduler s(cut, "random", [](std::string_view) -> int64_t { return 8; });
    s.split(static_cast<int>(random.between(1, 3)));
    for (std::vector<ReadyOp> ready = s.get_ready_ops(); !ready.empty(); ready = s.get_ready_ops()) {
      const ReadyOp& op =
          ready[static_cast<size_t>(random.between(0, static_cast<int64_t>(ready.size()) - 1))];
      s.execute(op, {.stream = op.has_tag("network") ? "network" : random.coin() ? "side" : "compute"});
    }
    const PlanPtr plan = lower(*s.finish());
    const auto violation = verify(*plan);
    CHECK_MESSAGE(!violation, (violation ? violation->message : ""));
    const PartitionPtr again = partition_from_text(text::parse(print(*cut)).at("partition"), graph);
    CHECK(again->split.layouts == cut->split.layouts);
    for (const Layout& layout : cut->split.layouts) privates += layout.kind == Layout::Kind::kPrivate ? 1 : 0;
    for (const RegionSplit& split : cut->split.regions) refused += split.refusal.empty() ? 0 : 1;
  }
  CHECK(privates > 200);
  CHECK(refused > 100);
}
