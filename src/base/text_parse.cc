#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <limits>

#include "dynaflow/text.h"

namespace dynaflow::text {

namespace {

constexpr size_t kShown = 12;     // bytes of what was found, in a message
constexpr int kMaxDepth = 64;     // of brackets
constexpr int kMaxHeight = 1024;  // of the tree: each operator of a chain adds one

bool is_name_start(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool is_name_char(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.'; }

/// Reads one physical line. Recursive descent; depth is bounded.
class LineReader {
 public:
  LineReader(std::string_view source, int line) : source_(source), line_(line) {}

  Line read_line() {
    Line result;
    result.line = line_;
    skip_space();
    result.column = column();
    if (peek() == '%') read_results(result.results);
    result.kind = name("an operation");
    if (peek() == '(') result.args = items('(', ')');
    if (peek() == '{') read_attrs(result.attrs);
    skip_space();
    if (at_ != source_.size()) fail("the end of the line");
    return result;
  }

  /// A header may leave out its parentheses: `nanoflow {parts=2}`.
  std::string name(const char* expected) {
    skip_space();
    if (at_ == source_.size() || !is_name_start(source_[at_])) fail(expected);
    const size_t begin = at_;
    while (at_ < source_.size() && is_name_char(source_[at_])) ++at_;
    return std::string(source_.substr(begin, at_ - begin));
  }

 private:
  struct Operator {
    std::string name;
    int column;
    int left_height;
  };

  int column() const { return static_cast<int>(at_) + 1; }
  char peek() {
    skip_space();
    return at_ < source_.size() ? source_[at_] : '\0';
  }
  void skip_space() {
    while (at_ < source_.size() && (source_[at_] == ' ' || source_[at_] == '\t')) ++at_;
  }
  void expect(char c) {
    if (peek() != c) fail(formatted("'{}'", c));
    ++at_;
  }
  [[noreturn]] void fail(const std::string& expected) {
    skip_space();
    const std::string found = at_ < source_.size() ? formatted("'{}'", clipped(source_.substr(at_), kShown))
                                                   : "the end of the line";
    throw ParseError(line_, column(), formatted("found {}; expected {}", found, expected));
  }

  void read_results(std::vector<std::string>& results) {
    do {
      if (peek() == ',') ++at_;
      expect('%');
      results.push_back(reference_name());
    } while (peek() == ',');
    expect('=');
  }

  std::string reference_name() {
    const size_t begin = at_;
    while (at_ < source_.size() && is_name_char(source_[at_])) ++at_;
    if (begin == at_) fail("a name after '%'");
    return std::string(source_.substr(begin, at_ - begin));
  }

  void read_attrs(std::vector<Attr>& attrs) {
    expect('{');
    while (peek() != '}') {
      if (!attrs.empty()) expect(',');
      std::string key = name("an attribute's name");
      expect('=');
      attrs.emplace_back(std::move(key), value());
    }
    expect('}');
  }

  std::vector<Value> items(char open, char close) {
    std::vector<Value> result;
    int highest = 0;
    expect(open);
    while (peek() != close) {
      if (!result.empty()) expect(',');
      result.push_back(value());
      highest = std::max(highest, height_);
    }
    expect(close);
    height_ = highest + 1;
    return result;
  }

  Value value() {
    if (++depth_ > kMaxDepth) fail(formatted("at most {} levels of nesting", kMaxDepth));
    Value left = product();
    for (char c = peek(); c == '+' || c == '-'; c = peek()) {
      const Operator op{std::string(1, c), column(), height_};
      ++at_;
      left = infix(op, std::move(left), product());
    }
    --depth_;
    return left;
  }

  Value product() {
    Value left = primary();
    for (std::string op = product_operator(); !op.empty(); op = product_operator()) {
      const Operator read{op, column(), height_};
      at_ += op.size();
      left = infix(read, std::move(left), primary());
    }
    return left;
  }

  /// `left op right`; right was read last.
  Value infix(const Operator& op, Value left, Value right) {
    height_ = std::max(op.left_height, height_) + 1;
    if (height_ > kMaxHeight) fail(formatted("at most {} operators in a row", kMaxHeight));
    return at_column(Value::infix(op.name, std::move(left), std::move(right)), op.column);
  }

  std::string product_operator() {
    const char c = peek();
    if (c == '*') return "*";
    if (c == '%') return "%";
    if (c == '/' && at_ + 1 < source_.size() && source_[at_ + 1] == '/') return "//";
    return "";
  }

  Value at_column(Value value, int column) const {
    value.line = line_;
    value.column = column;
    return value;
  }

  Value primary() {
    const char c = peek();
    const int column = this->column();
    height_ = 0;
    if (c == '[') return at_column(Value::list(items('[', ']')), column);
    if (c == '"') return at_column(Value::string(quoted()), column);
    if (c == '(') {
      ++at_;
      Value inner = value();
      expect(')');
      return inner;
    }
    if (c == '%') {
      ++at_;
      return at_column(Value::ref(reference_name()), column);
    }
    if (c == '-' || std::isdigit(static_cast<unsigned char>(c)) != 0) return at_column(number(), column);
    return at_column(word(), column);
  }

  Value word() {
    std::string text = name("a value");
    if (peek() == '(') return Value::call(std::move(text), items('(', ')'));
    if (text == "none") return Value::none();
    if (text == "true" || text == "false") return Value::boolean(text == "true");
    if (text == "inf") return Value::floating(std::numeric_limits<double>::infinity());
    if (text == "nan") return Value::floating(std::numeric_limits<double>::quiet_NaN());
    return Value::identifier(std::move(text));
  }

  Value number() {
    const size_t begin = at_;
    if (source_[at_] == '-') ++at_;
    if (source_.substr(at_, 3) == "inf") {
      at_ += 3;
      return Value::floating(-std::numeric_limits<double>::infinity());
    }
    bool real = false;
    for (; at_ < source_.size(); ++at_) {
      const char c = source_[at_];
      const bool sign = (c == '-' || c == '+') && (source_[at_ - 1] == 'e' || source_[at_ - 1] == 'E');
      if (c == '.' || c == 'e' || c == 'E' || sign) {
        real = true;
      } else if (std::isdigit(static_cast<unsigned char>(c)) == 0) {
        break;
      }
    }
    const char* first = source_.data() + begin;
    const char* last = source_.data() + at_;
    Value result = real ? Value::floating(0) : Value::integral(0);
    const std::from_chars_result read =
        real ? std::from_chars(first, last, result.real) : std::from_chars(first, last, result.integer);
    if (read.ec != std::errc() || read.ptr != last) {
      at_ = begin;
      fail("a number of 64 bits");
    }
    return result;
  }

  std::string quoted() {
    std::string result;
    for (++at_; at_ < source_.size() && source_[at_] != '"'; ++at_) {
      if (source_[at_] == '\\') {
        ++at_;
        result += escape();
      } else {
        result += source_[at_];
      }
    }
    if (at_ == source_.size()) fail("a closing '\"'");
    ++at_;
    return result;
  }

  char escape() {
    const char c = at_ < source_.size() ? source_[at_] : '\0';
    if (c == 'n') return '\n';
    if (c == '"' || c == '\\') return c;
    unsigned char code = 0;  // unsigned: no sign is read
    const char* digits = source_.data() + at_ + 1;
    if (c != 'x' || at_ + 2 >= source_.size() ||
        std::from_chars(digits, digits + 2, code, 16).ptr != digits + 2)
      fail("one of the escapes \\n \\\" \\\\ \\xHH");
    at_ += 2;
    return static_cast<char>(code);
  }

  std::string_view source_;
  int line_;
  size_t at_ = 0;
  int depth_ = 0;
  int height_ = 0;  // of the value read last
};

/// The line without its comment; '#' inside a string does not begin one.
std::string_view strip_comment(std::string_view line) {
  bool inside = false;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\\' && inside) {
      ++i;
    } else if (line[i] == '"') {
      inside = !inside;
    } else if (line[i] == '#' && !inside) {
      line = line.substr(0, i);
    }
  }
  while (!line.empty() && (line.back() == ' ' || line.back() == '\t' || line.back() == '\r'))
    line.remove_suffix(1);
  return line;
}

Section read_section_start(std::string_view line, int number) {
  Section section;
  section.line = number;
  section.header.line = number;
  section.name = LineReader(line, number).name("a section's name");
  if (section.name.size() >= line.size() || line[section.name.size()] != ':')
    throw ParseError(number, static_cast<int>(section.name.size()) + 1,
                     "no ':' after the section's name; expected 'name:' or an indented line");
  const size_t rest = section.name.size() + 1;
  if (line.find_first_not_of(" \t", rest) == std::string_view::npos) return section;
  // Blanks in place of the name keep the columns of errors true.
  const std::string padded = std::string(rest, ' ') + std::string(line.substr(rest));
  section.header = LineReader(padded, number).read_line();
  return section;
}

}  // namespace

Document parse(std::string_view source) {
  Document document;
  int number = 0;
  for (size_t begin = 0; begin < source.size();) {
    size_t end = source.find('\n', begin);
    if (end == std::string_view::npos) end = source.size();
    const std::string_view whole = source.substr(begin, end - begin);
    const std::string_view line = strip_comment(whole);
    ++number;
    begin = end + 1;
    const bool indented = !line.empty() && (line[0] == ' ' || line[0] == '\t');
    if (!line.empty() && !indented) {
      document.sections.push_back(read_section_start(line, number));
      continue;
    }
    if (!document.sections.empty()) document.sections.back().raw.append(whole).append("\n");
    if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
    if (document.sections.empty())
      throw ParseError(number, 1, "a line outside of any section; expected 'name:' above it");
    document.sections.back().lines.push_back(LineReader(line, number).read_line());
  }
  return document;
}

}  // namespace dynaflow::text
