#pragma once
#include <fmt/format.h>

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

namespace dynaflow {

/// An immutable text that copies share: for texts of which a graph has few, each of them many times. A value;
/// compares and prints as its text.
class Name {
 public:
  Name() = default;
  Name(std::string text)  // NOLINT(google-explicit-constructor): it is a text
      : text_(text.empty() ? nullptr : std::make_shared<const std::string>(std::move(text))) {}
  Name(const char* text) : Name(std::string(text)) {}  // NOLINT(google-explicit-constructor)

  const std::string& str() const { return text_ ? *text_ : kEmpty; }
  operator const std::string&() const { return str(); }  // NOLINT(google-explicit-constructor)
  operator std::string_view() const { return str(); }    // NOLINT(google-explicit-constructor)
  bool empty() const { return text_ == nullptr; }

  friend bool operator==(const Name& a, const Name& b) { return a.text_ == b.text_ || a.str() == b.str(); }
  friend bool operator==(const Name& a, std::string_view b) { return a.str() == b; }
  friend bool operator==(const Name& a, const std::string& b) { return a.str() == b; }
  friend bool operator==(const Name& a, const char* b) { return a.str() == b; }

 private:
  static const std::string kEmpty;
  std::shared_ptr<const std::string> text_;  // null: empty
};

/// Lets equal names share their text. Not thread-safe.
class NamePool {
 public:
  Name share(std::string_view text) {
    if (const auto found = known_.find(text); found != known_.end()) return found->second;
    const Name name{std::string(text)};
    if (!name.empty()) known_.emplace(name, name);  // the key lies in the name's own text
    return name;
  }

 private:
  std::unordered_map<std::string_view, Name> known_;
};

}  // namespace dynaflow

template <>
struct fmt::formatter<dynaflow::Name> : fmt::formatter<std::string_view> {
  auto format(const dynaflow::Name& name, format_context& context) const {
    return fmt::formatter<std::string_view>::format(name.str(), context);
  }
};
