// Inputs that fuzzing, or reading with it in mind, found to exhaust memory, time or the stack, to overflow,
// or to read back as something else. Each is refused by a typed error now, or survives.

#include <doctest/doctest.h>

#include <string>

#include "dynaflow/plan.h"
#include "dynaflow/strategy.h"
#include "dynaflow/verify.h"

using namespace dynaflow;

namespace {

std::string repeated(const std::string& piece, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) result += piece;
  return result;
}

SizeExpr read_size(const std::string& text) {
  return SizeExpr::from_text(text::parse("s:\n  k(" + text + ")\n").at("s").lines.at(0).args.at(0));
}

const std::string kGraph =
    "graph: g() {batch=s0, tokens=s0}\n"
    "  %s0 = symbol() {min=2, hint=8}\n"
    "  %x = input(0, tensor(float32, [s0, 4]))\n"
    "  %a = aten.relu.default(%x) {out=[tensor(float32, [s0, 4])], out_target=\"aten.relu.out\"}\n"
    "  output(%a)\n";

CutRule read_cut(const std::string& text) {
  return cut_from_text(text::parse("s:\n  k(" + text + ")\n").at("s").lines.at(0).args.at(0));
}

PlanPtr with_buffers(const std::string& lines) {
  return parse_plan(kGraph + "plan: plan() {strategy=\"x\", cut=even(1, 1), events=0}\n" + lines);
}

int64_t arena_of(const PlanPtr& plan) {
  Binding binding;
  Binder(plan).bind({8}, binding);
  return binding.arena_bytes;
}

}  // namespace

TEST_CASE("a chain of operators is as limited as nesting") {
  CHECK_THROWS_AS(text::parse("g:\n  k(1" + repeated("+1", 100000) + ")"), ParseError);
  CHECK_THROWS_AS(text::parse("g:\n  k(a" + repeated("*a", 100000) + ")"), ParseError);
  CHECK_THROWS_AS(
      text::parse("g:\n  k(" + repeated("(", 60) + "1" + repeated(repeated("+1", 100) + ")", 60) + ")"),
      ParseError);
  const text::Document deep = text::parse("g:\n  k(1" + repeated("+1", 1000) + ")");
  CHECK(text::parse(text::print(deep)) == deep);
}

TEST_CASE("a size cannot grow without limit, and what is allowed reads back") {
  CHECK_THROWS_AS(read_size("a" + repeated("//2", 30)), GraphError);
  CHECK_THROWS_AS(read_size("a" + repeated("*a", 800)), GraphError);
  std::string sum = "a0";
  for (int i = 1; i < 40; ++i) sum += "+a" + std::to_string(i);
  CHECK_THROWS_AS(read_size("(" + sum + ")" + repeated("*(" + sum + ")", 8)), GraphError);
  CHECK_THROWS_AS(read_size("(s0//3 + 1)" + repeated("*(s0//3 + 1)//7", 20)), GraphError);
  const SizeExpr nested = read_size("a" + repeated("//2*b", 20));
  CHECK(read_size(nested.str()) == nested);
}

TEST_CASE("a sum of many symbols reads back at once") {
  std::string sum = "a0";
  for (int i = 1; i < 250; ++i) sum += " + a" + std::to_string(i);
  const SizeExpr size = read_size(sum);
  CHECK(size.terms().size() == 250);
  CHECK(read_size(size.str()) == size);
}

TEST_CASE("a line ends where its text does") {
  CHECK_THROWS_AS(text::parse(std::string("g:\n  k()\0x", 10)), ParseError);
  CHECK_THROWS_AS(text::parse("g:\n  k(\"\\x-1\")"), ParseError);
}

TEST_CASE("a message cuts no character in two") {
  const std::string text = "g:\n  k(abcdefghij\xc3\xa4\xc3\xa4)";
  try {
    text::parse(text);
    FAIL("no error");
  } catch (const ParseError& error) {
    CHECK(std::string(error.what()) ==
          "ParseError: line 2, column 15: found '\xc3\xa4\xc3\xa4)'; expected ','");
  }
  CHECK(text::clipped("abc\xc3\xa4", 4) == "abc...");
  CHECK(text::clipped("abc", 3) == "abc");
}

TEST_CASE("an error in a line points at its first character, and one in a header at its section") {
  CHECK_THROWS_WITH_AS(parse_graph("graph: g\n    %a = symbol()"),
                       "ParseError: line 2, column 5: 'symbol' needs the attribute 'hint'", ParseError);
  CHECK_THROWS_WITH_AS(parse_plan(kGraph + "plan:\n"),
                       "ParseError: line 6, column 1: the section needs the attribute 'strategy'",
                       ParseError);
}

TEST_CASE("a segment reads only segments above it") {
  const auto graph = std::make_shared<const Graph>(parse_graph(kGraph));
  for (const char* input : {"0", "-1", "2147483647", "4294967296"}) {
    CAPTURE(input);
    const std::string text =
        "partition:\n  segment(\"relu\", [\"a\"]) {form=split, inputs=[" + std::string(input) + "]}\n";
    CHECK_THROWS_AS(partition_from_text(text::parse(text).at("partition"), graph), ParseError);
  }
}

TEST_CASE("a cut rule that is read can be used") {
  for (const char* text : {"even(2000000000, 1)", "even(0, 1)", "even(2, -1)", "sizes(2, 1, [1])",
                           "sizes(2, 1, [9223372036854775807, 1])", "sizes(2, 1, [-1, 9])",
                           "fractions(2, 1, [nan, 0.5])", "fractions(2, 1, [0.0, 1.0])"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(read_cut(text), ParseError);
  }
  CHECK(cut(read_cut("sizes(2, 1, [3, 5])"), 8) == std::vector<int64_t>{3, 5});
}

TEST_CASE("a plan cannot ask for more events than it uses, nor for an arena beyond 64 bits") {
  CHECK_THROWS_AS(parse_plan(kGraph + "plan: plan() {strategy=\"x\", cut=even(1, 1), events=2147483647}\n"),
                  PlanError);
  CHECK(arena_of(with_buffers("  buffer(100, [])\n  buffer(4*s0, [0])\n")) == 160);
  const std::string huge = "  buffer(9223372036854775800, [])\n";
  CHECK_THROWS_AS(arena_of(with_buffers(huge + "  buffer(64, [0])\n")), PlanError);
  CHECK_THROWS_AS(arena_of(with_buffers("  buffer(s0 - 9, [])\n")), PlanError);
}

TEST_CASE("a batch symbol of any range can be split") {
  std::string text = kGraph;
  text.replace(text.find("min=2"), 5, "min=9223372036854775807");
  const auto graph = std::make_shared<const Graph>(parse_graph(text));
  const StrategyPtr strategy = make_nanoflow({{"min_tokens", text::Value::integral(0)}});
  const SchedulePtr schedule =
      make_schedule(partition(graph, strategy->partition()), *strategy, [](std::string_view) { return 8; });
  CHECK(schedule->cut.parts == 1);
  CHECK_THROWS_AS(make_nanoflow({{"parts", text::Value::integral(int64_t{1} << 32)}}), ParseError);
}
