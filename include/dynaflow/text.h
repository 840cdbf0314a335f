#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dynaflow/base.h"

/// One grammar for every text form in the project:
///
///     section:
///       %a, %b = kind(arg, [arg, ...], name(arg)) {key=value, ...}   # comment
///
/// A value is none, true, false, an integer, a float, a "string", a %reference, a name, a [list], a call, or
/// an infix expression of + - * // % over them. Infix operators are calls named after the operator.
namespace dynaflow::text {

struct Value {
  enum class Kind : uint8_t { kNone, kBool, kInt, kFloat, kString, kRef, kName, kList, kCall };
  Kind kind = Kind::kNone;
  int64_t integer = 0;       // kBool (0 or 1), kInt
  double real = 0;           // kFloat
  std::string name;          // kString: the text; kRef, kName, kCall: the name
  std::vector<Value> items;  // kList, kCall
  int line = 0;              // where it was read, for errors; ignored by ==
  int column = 0;

  static Value none() { return {}; }
  static Value boolean(bool value);
  static Value integral(int64_t value);
  static Value floating(double value);
  static Value string(std::string value);
  static Value ref(std::string name);
  static Value identifier(std::string name);
  static Value list(std::vector<Value> items);
  static Value call(std::string name, std::vector<Value> items);
  static Value infix(std::string op, Value left, Value right);

  bool operator==(const Value& other) const;

  /// Checked access; each throws ParseError with this value's position and what was expected.
  bool as_bool() const;
  int64_t as_int() const;
  double as_float() const;
  const std::string& as_string() const;
  const std::string& as_ref() const;
  const std::string& as_name() const;
  const std::vector<Value>& as_list() const;
  [[noreturn]] void fail(const std::string& expected) const;
};

using Attr = std::pair<std::string, Value>;

/// `%results = kind(args) {attrs}`.
struct Line {
  std::vector<std::string> results;
  std::string kind;
  std::vector<Value> args;
  std::vector<Attr> attrs;
  int line = 0;
  int column = 1;

  bool operator==(const Line& other) const;
  /// The attribute's value, or nullptr when the line has none of that name.
  const Value* find(std::string_view key) const;
  /// The attribute's value; throws ParseError when it is missing.
  const Value& at(std::string_view key) const;
  [[noreturn]] void fail(const std::string& message) const;
};

/// `name: header` and the lines below it. `header` is a line without results (kind, args, attrs), or empty.
struct Section {
  std::string name;
  Line header;
  std::vector<Line> lines;
  int line = 0;
  std::string raw;  // the section's lines as they stand in the text, comments included

  bool operator==(const Section& other) const;
};

struct Document {
  std::vector<Section> sections;

  bool operator==(const Document& other) const = default;
  /// The section of that name, or nullptr.
  const Section* find(std::string_view name) const;
  /// The section of that name; throws ParseError when it is missing.
  const Section& at(std::string_view name) const;
};

/// Reads a document. Throws ParseError; nesting is limited to 64 levels and an expression to 1024 operators
/// in a row, so no input can exhaust the stack.
Document parse(std::string_view source);

/// parse(print(d)) == d.
std::string print(const Document& document);
std::string print(const Section& section);
std::string print(const Line& line);
std::string print(const Value& value);

/// At most `bytes` bytes of a text for a message, with "..." where more follows; no UTF-8 character is cut.
std::string clipped(std::string_view text, size_t bytes);

}  // namespace dynaflow::text
