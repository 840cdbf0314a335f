#include "mutate.h"

#include <cctype>
#include <utility>
#include <vector>

namespace dynaflow::fuzz {

namespace {

using Pieces = std::vector<std::string>;

constexpr const char* kIntegers[] = {"0",
                                     "1",
                                     "-1",
                                     "2",
                                     "3",
                                     "63",
                                     "1024",
                                     "1025",
                                     "2147483647",
                                     "2147483648",
                                     "-2147483648",
                                     "4294967295",
                                     "4611686018427387904",
                                     "9223372036854775807",
                                     "-9223372036854775808",
                                     "9223372036854775808",
                                     "1e308",
                                     "0.1",
                                     "-inf",
                                     "nan"};
constexpr const char* kWords[] = {"none",
                                  "true",
                                  "inf",
                                  "+",
                                  "-",
                                  "*",
                                  "//",
                                  "%",
                                  "max",
                                  "min",
                                  "[",
                                  "]",
                                  "(",
                                  ")",
                                  "{",
                                  "}",
                                  ",",
                                  "=",
                                  ":",
                                  "#",
                                  "\"",
                                  "\"\\x41\"",
                                  "symbol",
                                  "input",
                                  "equal",
                                  "tensor",
                                  "bool",
                                  "alias",
                                  "writes",
                                  "random",
                                  "view",
                                  "opaque",
                                  "kernel",
                                  "out",
                                  "copy",
                                  "in_place",
                                  "fresh",
                                  "arena",
                                  "argument",
                                  "output",
                                  "constant",
                                  "wait",
                                  "record",
                                  "launch",
                                  "free",
                                  "slot",
                                  "size",
                                  "result",
                                  "guard",
                                  "not",
                                  "lt",
                                  "eq",
                                  "even",
                                  "sizes",
                                  "fractions",
                                  "host",
                                  "thread",
                                  "async",
                                  "host_sync",
                                  "marks",
                                  "reads_context",
                                  "{after=[0]}"};
constexpr std::pair<const char*, const char*> kNests[] = {
    {"(", ")"},    {"[", "]"},     {"max(", ", s0)"}, {"min(3, ", ")"}, {"(", ")//2"},    {"(", ")%s0"},
    {"s0*(", ")"}, {"(", " + 1)"}, {"not(", ")"},     {"s0 - ", ""},    {"tensor(", ")"}, {"size(", ")"}};

size_t below(std::minstd_rand& random, size_t count) { return count == 0 ? 0 : random() % count; }
template <typename T, size_t N>
const T& one_of(const T (&items)[N], std::minstd_rand& random) {
  return items[below(random, N)];
}
const std::string& one_of(const Pieces& pieces, std::minstd_rand& random) {
  return pieces[below(random, pieces.size())];
}

Pieces split_lines(std::string_view text) {
  Pieces lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size() - 1);
    lines.emplace_back(text.substr(0, end + 1));
    text.remove_prefix(end + 1);
  }
  return lines;
}

/// Words, numbers, strings, runs of blanks, and single characters.
Pieces split_tokens(std::string_view text) {
  const auto is_word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; };
  Pieces tokens;
  while (!text.empty()) {
    size_t end = 1;
    if (text[0] == '"') {
      end = std::min(text.find('"', 1), text.size() - 1) + 1;
    } else if (is_word(text[0])) {
      while (end < text.size() && (is_word(text[end]) || text[end] == '.')) ++end;
    } else if (text[0] == ' ') {
      while (end < text.size() && text[end] == ' ') ++end;
    }
    tokens.emplace_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return tokens;
}

std::string joined(const Pieces& pieces) {
  std::string text;
  for (const std::string& piece : pieces) text += piece;
  return text;
}

/// Swaps, drops, doubles or brings in pieces.
void rearrange(Pieces& pieces, const Pieces& others, std::minstd_rand& random) {
  const size_t at = below(random, pieces.size());
  const auto place = pieces.begin() + static_cast<std::ptrdiff_t>(at);
  switch (below(random, 5)) {
    case 0:
      return std::swap(pieces[at], pieces[below(random, pieces.size())]);
    case 1:
      pieces.erase(place);
      return;
    case 2:
      pieces.insert(place, std::string(pieces[at]));
      return;
    case 3:
      pieces[at] = one_of(others, random);
      return;
    default:
      pieces.insert(place, one_of(others, random));
  }
}

bool is_number(const std::string& token) { return std::isdigit(static_cast<unsigned char>(token[0])) != 0; }

/// Wraps a token in an expression, at times so often that limits are met.
std::string nested(std::string token, std::minstd_rand& random) {
  const auto& [before, after] = one_of(kNests, random);
  const size_t times = below(random, 8) == 0 ? below(random, 80) : 1;
  for (size_t i = 0; i < times; ++i) token = before + token + after;
  return token;
}

/// "s0" becomes "s0 + s0 + ...".
std::string chained(const std::string& token, std::minstd_rand& random) {
  static constexpr const char* kOperators[] = {" + ", " - ", "*", "//", " % "};
  const std::string link = one_of(kOperators, random) + token;
  std::string chain = token;
  for (size_t i = below(random, 8) == 0 ? below(random, 600) : 1; i > 0; --i) chain += link;
  return chain;
}

void change_token(Pieces& tokens, const Pieces& others, std::minstd_rand& random) {
  size_t at = below(random, tokens.size());
  for (size_t i = 0; i < 8 && tokens[at][0] == ' '; ++i) at = below(random, tokens.size());
  std::string& token = tokens[at];
  switch (below(random, 7)) {
    case 0:
      token = one_of(kWords, random);
      return;
    case 1:
      token = nested(token, random);
      return;
    case 2:
      token = chained(token, random);
      return;
    case 3:
      token = one_of(others, random);
      return;
    case 4:
      return rearrange(tokens, others, random);
    default:
      for (size_t i = 0; i < tokens.size(); ++i) {
        std::string& next = tokens[(at + i) % tokens.size()];
        if (!is_number(next)) continue;
        next = below(random, 3) == 0 ? one_of(kIntegers, random) : std::to_string(below(random, 12));
        return;
      }
  }
}

}  // namespace

std::string mutate(std::string_view text, std::string_view other, std::minstd_rand& random) {
  Pieces lines = split_lines(text.empty() ? "graph:\n" : text);
  const Pieces other_lines = split_lines(other.empty() ? text : other);
  if (other_lines.empty()) return joined(lines);
  for (size_t changes = 1 + below(random, 3); changes > 0 && !lines.empty(); --changes) {
    if (below(random, 4) == 0) {
      rearrange(lines, other_lines, random);
      continue;
    }
    std::string& line = lines[below(random, lines.size())];
    Pieces tokens = split_tokens(line);
    const Pieces other_tokens = split_tokens(one_of(other_lines, random));
    if (tokens.empty() || other_tokens.empty()) continue;
    change_token(tokens, other_tokens, random);
    line = joined(tokens);
  }
  return joined(lines);
}

}  // namespace dynaflow::fuzz
