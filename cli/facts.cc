#include "cli/facts.h"

#include <algorithm>

namespace dynaflow::cli {

namespace {

bool is_empty(const Facts& fact) { return fact.is_null() || (fact.is_structured() && fact.empty()); }

/// "output_storages" → "output storages"
std::string words(std::string key) {
  std::replace(key.begin(), key.end(), '_', ' ');
  return key;
}

std::string one_line(const Facts& fact) {
  if (is_empty(fact)) return "none";
  if (fact.is_string()) return fact.get<std::string>();
  if (fact.is_boolean()) return fact.get<bool>() ? "yes" : "no";
  if (!fact.is_structured()) return fact.dump();
  std::string line;
  for (const auto& item : fact.items()) {
    if (!line.empty()) line += ", ";
    if (fact.is_object()) line += item.key() + " ";
    line += one_line(item.value());
  }
  return line;
}

/// "s0: min 2, max none, hint 8"
std::string row(Facts fact) {
  const std::string head = one_line(fact.begin().value());
  fact.erase(fact.begin());
  return is_empty(fact) ? head : head + ": " + one_line(fact);
}

}  // namespace

std::string as_json(const Facts& facts) {
  return facts.dump(2, ' ', false, Facts::error_handler_t::replace) + "\n";
}

std::string as_text(const Facts& facts) {
  std::string text;
  for (const auto& item : facts.items()) {
    const Facts& fact = item.value();
    text += words(item.key()) + ":";
    if (fact.is_array() && !fact.empty() && fact.front().is_object()) {
      for (const Facts& entry : fact) text += "\n  " + row(entry);
    } else {
      text += " " + one_line(fact);
    }
    text += "\n";
  }
  return text;
}

Sizes hints(const Graph& graph) {
  Sizes sizes;
  for (const Symbol& symbol : graph.symbols) sizes[symbol.name] = symbol.hint;
  return sizes;
}

Facts size_facts(const Graph& graph, const Sizes& sizes) {
  Facts facts = Facts::object();
  for (const Symbol& symbol : graph.symbols) facts[symbol.name] = sizes.at(symbol.name);
  return facts;
}

std::function<int64_t(std::string_view)> value_in(Sizes sizes) {
  return [sizes = std::move(sizes)](std::string_view name) {
    const auto found = sizes.find(name);
    if (found == sizes.end()) throw GraphError(formatted("the symbol '{}' is not in the graph", name));
    return found->second;
  };
}

}  // namespace dynaflow::cli
