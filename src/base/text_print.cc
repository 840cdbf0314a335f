#include <cmath>
#include <string_view>

#include "dynaflow/text.h"

namespace dynaflow::text {

namespace {

std::string quote(const std::string& raw) {
  std::string result = "\"";
  for (char c : raw) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (c == '\n') {
      result += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      result += formatted("\\x{:02x}", byte);
    } else {
      result += c;
    }
  }
  return result + "\"";
}

std::string print_float(double real) {
  if (std::isnan(real)) return "nan";
  if (std::isinf(real)) return real > 0 ? "inf" : "-inf";
  std::string digits = formatted("{}", real);
  if (digits.find_first_of(".e") == std::string::npos) digits += ".0";
  return digits;
}

bool is_operator(const Value& value) {
  return value.kind == Value::Kind::kCall && value.items.size() == 2 &&
         (value.name == "+" || value.name == "-" || value.name == "*" || value.name == "//" ||
          value.name == "%");
}

std::string join(const std::vector<Value>& items) {
  std::string result;
  for (const Value& item : items) {
    if (!result.empty()) result += ", ";
    result += print(item);
  }
  return result;
}

int precedence(const Value& value) {
  if (!is_operator(value)) return 3;
  return value.name == "+" || value.name == "-" ? 1 : 2;
}

std::string print_infix(const Value& value) {
  const int own = precedence(value);
  std::string left = print(value.items[0]);
  std::string right = print(value.items[1]);
  if (precedence(value.items[0]) < own) left = "(" + left + ")";
  if (precedence(value.items[1]) <= own) right = "(" + right + ")";
  const bool spaced = own == 1 || value.name == "%";  // a spaced % cannot be read as a reference
  return left + (spaced ? " " + value.name + " " : value.name) + right;
}

}  // namespace

std::string clipped(std::string_view text, size_t bytes) {
  if (text.size() <= bytes) return std::string(text);
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xc0) == 0x80) --bytes;
  return std::string(text.substr(0, bytes)) + "...";
}

std::string print(const Value& value) {
  switch (value.kind) {
    case Value::Kind::kNone:
      return "none";
    case Value::Kind::kBool:
      return value.integer != 0 ? "true" : "false";
    case Value::Kind::kInt:
      return formatted("{}", value.integer);
    case Value::Kind::kFloat:
      return print_float(value.real);
    case Value::Kind::kString:
      return quote(value.name);
    case Value::Kind::kRef:
      return "%" + value.name;
    case Value::Kind::kName:
      return value.name;
    case Value::Kind::kList:
      return "[" + join(value.items) + "]";
    case Value::Kind::kCall:
      break;
  }
  if (is_operator(value)) return print_infix(value);
  return value.name + "(" + join(value.items) + ")";
}

std::string print(const Line& line) {
  std::string result;
  for (const std::string& name : line.results) result += (result.empty() ? "%" : ", %") + name;
  if (!result.empty()) result += " = ";
  result += line.kind + "(" + join(line.args) + ")";
  if (line.attrs.empty()) return result;
  std::string attrs;
  for (const Attr& attr : line.attrs) {
    if (!attrs.empty()) attrs += ", ";
    attrs += attr.first + "=" + print(attr.second);
  }
  return result + " {" + attrs + "}";
}

std::string print(const Section& section) {
  std::string result = section.name + ":";
  if (!section.header.kind.empty()) result += " " + print(section.header);
  result += "\n";
  for (const Line& line : section.lines) result += "  " + print(line) + "\n";
  return result;
}

std::string print(const Document& document) {
  std::string result;
  for (const Section& section : document.sections) result += print(section);
  return result;
}

}  // namespace dynaflow::text
