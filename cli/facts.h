#pragma once
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "dynaflow/graph.h"

namespace dynaflow::cli {

/// What a subcommand found out, in a stable order. The text and the JSON are two views of the same facts.
using Facts = nlohmann::ordered_json;

/// The facts as JSON, with a newline. Bytes that are no UTF-8 are replaced.
std::string as_json(const Facts& facts);
/// The facts as `key: value` lines; a list of objects has a line for each, headed by its first member.
std::string as_text(const Facts& facts);

/// A value for every symbol of a graph.
using Sizes = std::map<std::string, int64_t, std::less<>>;
/// The sizes that the graph was captured with.
Sizes hints(const Graph& graph);
/// Sizes as facts, in the graph's order.
Facts size_facts(const Graph& graph, const Sizes& sizes);
/// Looks names up in `sizes`. Throws GraphError for a name that is not there.
std::function<int64_t(std::string_view)> value_in(Sizes sizes);

}  // namespace dynaflow::cli
