#include <doctest/doctest.h>

#include <limits>
#include <string>

#include "dynaflow/text.h"
#include "random.h"

using dynaflow::ParseError;
using dynaflow::testing::Random;
namespace text = dynaflow::text;

namespace {

std::string random_word(Random& random) {
  static const std::string kLetters = "abcxyz_";
  std::string word;
  for (int64_t i = random.between(1, 6); i > 0; --i)
    word += kLetters[static_cast<size_t>(random.between(0, static_cast<int64_t>(kLetters.size()) - 1))];
  return word;
}

std::string random_string(Random& random) {
  std::string result;
  for (int64_t i = random.between(0, 8); i > 0; --i) result += static_cast<char>(random.between(1, 126));
  return result;
}

text::Value random_value(Random& random, int depth) {
  switch (random.between(0, depth > 0 ? 9 : 6)) {
    case 0:
      return text::Value::none();
    case 1:
      return text::Value::boolean(random.coin());
    case 2:
      return text::Value::integral(random.between(INT64_MIN, INT64_MAX));
    case 3:
      return text::Value::floating(static_cast<double>(random.between(-1000, 1000)) / 7);
    case 4:
      return text::Value::string(random_string(random));
    case 5:
      return text::Value::ref(random_word(random));
    case 6:
      return text::Value::identifier("n_" + random_word(random));
    case 7:
      return text::Value::list({random_value(random, depth - 1), random_value(random, depth - 1)});
    case 8:
      return text::Value::call(random_word(random), {random_value(random, depth - 1)});
    default: {
      static const std::string kOperators[] = {"+", "-", "*", "//", "%"};
      return text::Value::call(kOperators[random.between(0, 4)],
                               {random_value(random, depth - 1), random_value(random, depth - 1)});
    }
  }
}

}  // namespace

TEST_CASE("what is printed is read back the same") {
  for (uint32_t seed = 0; seed < 2000; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    text::Line line;
    if (random.coin()) line.results = {random_word(random), "r2"};
    line.kind = random_word(random) + ".x";
    for (int64_t i = random.between(0, 3); i > 0; --i) line.args.push_back(random_value(random, 4));
    if (random.coin()) line.attrs.emplace_back(random_word(random), random_value(random, 3));
    text::Document document;
    document.sections.push_back({"s", {}, {line}, 0, ""});
    CAPTURE(text::print(document));
    CHECK(text::parse(text::print(document)) == document);
  }
}

TEST_CASE("infinities and nan survive") {
  for (const double real : {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(),
                            std::numeric_limits<double>::quiet_NaN()}) {
    text::Document document;
    document.sections.push_back({"s", {}, {{{}, "k", {text::Value::floating(real)}, {}, 0}}, 0, ""});
    CHECK(text::parse(text::print(document)) == document);
  }
}

TEST_CASE("an error gives the line, the column and what was expected") {
  const auto message = [](const char* source) -> std::string {
    try {
      text::parse(source);
    } catch (const ParseError& error) {
      return error.what();
    }
    return "no error";
  };
  CHECK(message("graph:\n  %a = (1)") == "ParseError: line 2, column 8: found '(1)'; expected an operation");
  CHECK(message("graph:\n  k(1") == "ParseError: line 2, column 6: found the end of the line; expected ','");
  CHECK(message("graph:\n  k(\"a)") ==
        "ParseError: line 2, column 8: found the end of the line; expected a closing '\"'");
  CHECK(message("  k()") ==
        "ParseError: line 1, column 1: a line outside of any section; expected 'name:' above it");
  CHECK(message("g:\n  k(99999999999999999999)").find("a number of 64 bits") != std::string::npos);
}

TEST_CASE("no nesting exhausts the stack") {
  CHECK_THROWS_AS(text::parse("g:\n  k(" + std::string(100000, '[')), ParseError);
  CHECK_THROWS_AS(text::parse("g:\n  k(" + std::string(100000, '(')), ParseError);
}

TEST_CASE("a comment ends a line, but not inside a string") {
  const text::Document document = text::parse("g:  # section\n  k(\"a # b\")  # note\n");
  CHECK(document.at("g").lines.at(0).args.at(0).as_string() == "a # b");
}
