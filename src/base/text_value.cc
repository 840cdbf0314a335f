#include "dynaflow/text.h"

namespace dynaflow::text {

namespace {
constexpr size_t kShown = 60;  // bytes of a value in a message
Value make(Value::Kind kind) {
  Value value;
  value.kind = kind;
  return value;
}
Value named(Value::Kind kind, std::string name) {
  Value value = make(kind);
  value.name = std::move(name);
  return value;
}
}  // namespace

Value Value::boolean(bool value) {
  Value result = make(Kind::kBool);
  result.integer = value ? 1 : 0;
  return result;
}
Value Value::integral(int64_t value) {
  Value result = make(Kind::kInt);
  result.integer = value;
  return result;
}
Value Value::floating(double value) {
  Value result = make(Kind::kFloat);
  result.real = value;
  return result;
}
Value Value::string(std::string value) { return named(Kind::kString, std::move(value)); }
Value Value::ref(std::string name) { return named(Kind::kRef, std::move(name)); }
Value Value::identifier(std::string name) { return named(Kind::kName, std::move(name)); }
Value Value::list(std::vector<Value> items) {
  Value result = make(Kind::kList);
  result.items = std::move(items);
  return result;
}
Value Value::call(std::string name, std::vector<Value> items) {
  Value result = named(Kind::kCall, std::move(name));
  result.items = std::move(items);
  return result;
}
Value Value::infix(std::string op, Value left, Value right) {
  std::vector<Value> items;  // an initialiser list would copy the operands, which may be long chains
  items.reserve(2);
  items.push_back(std::move(left));
  items.push_back(std::move(right));
  return call(std::move(op), std::move(items));
}

bool Value::operator==(const Value& other) const {
  const bool same_real = real == other.real || (real != real && other.real != other.real);
  return kind == other.kind && integer == other.integer && same_real && name == other.name &&
         items == other.items;
}

void Value::fail(const std::string& expected) const {
  throw ParseError(line, column,
                   formatted("found '{}'; expected {}", clipped(print(*this), kShown), expected));
}
bool Value::as_bool() const {
  if (kind != Kind::kBool) fail("true or false");
  return integer != 0;
}
int64_t Value::as_int() const {
  if (kind != Kind::kInt) fail("an integer");
  return integer;
}
double Value::as_float() const {
  if (kind == Kind::kInt) return static_cast<double>(integer);
  if (kind != Kind::kFloat) fail("a number");
  return real;
}
const std::string& Value::as_string() const {
  if (kind != Kind::kString) fail("a \"string\"");
  return name;
}
const std::string& Value::as_ref() const {
  if (kind != Kind::kRef) fail("a %reference");
  return name;
}
const std::string& Value::as_name() const {
  if (kind != Kind::kName) fail("a name");
  return name;
}
const std::vector<Value>& Value::as_list() const {
  if (kind != Kind::kList) fail("a [list]");
  return items;
}

bool Line::operator==(const Line& other) const {
  return results == other.results && kind == other.kind && args == other.args && attrs == other.attrs;
}
const Value* Line::find(std::string_view key) const {
  for (const Attr& attr : attrs)
    if (attr.first == key) return &attr.second;
  return nullptr;
}
const Value& Line::at(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr)
    fail(formatted("{} needs the attribute '{}'", kind.empty() ? "the section" : "'" + kind + "'", key));
  return *value;
}
void Line::fail(const std::string& message) const { throw ParseError(line, column, message); }

bool Section::operator==(const Section& other) const {
  return name == other.name && header == other.header && lines == other.lines;
}

const Section* Document::find(std::string_view name) const {
  for (const Section& section : sections)
    if (section.name == name) return &section;
  return nullptr;
}
const Section& Document::at(std::string_view name) const {
  const Section* section = find(name);
  if (section == nullptr) throw ParseError(1, 1, formatted("no section '{}:'", name));
  return *section;
}

}  // namespace dynaflow::text
