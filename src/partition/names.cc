#include "partition/names.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace dynaflow {

namespace {

/// What a reader of a timeline looks for; norms and adds around them do not name a segment.
constexpr std::array<std::string_view, 8> kHeavy = {"mm",     "bmm",         "addmm",      "baddbmm",
                                                    "linear", "convolution", "grouped_mm", "embedding"};

bool is_heavy(const Op& op) {
  const std::string_view name = short_target(op.target);
  return std::find(kHeavy.begin(), kHeavy.end(), name) != kHeavy.end() ||
         name.find("attention") != std::string_view::npos;
}

std::string_view common_module(std::string_view a, std::string_view b) {
  size_t same = 0;
  while (same < std::min(a.size(), b.size()) && a[same] == b[same]) ++same;
  const bool whole = (same == a.size() || a[same] == '.') && (same == b.size() || b[same] == '.');
  if (whole) return a.substr(0, same);
  const size_t dot = a.substr(0, same).rfind('.');
  return dot == std::string_view::npos ? std::string_view() : a.substr(0, dot);
}

/// "model.layers.3.mlp" -> "layers.3.mlp"; without a number the last part: "model.embed_tokens" ->
/// "embed_tokens".
std::string_view shorten(std::string_view path) {
  size_t previous = 0;
  for (size_t begin = 0; begin < path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (begin > 0 && part.find_first_not_of("0123456789") == std::string_view::npos)
      return path.substr(previous);
    previous = begin;
    begin = end + 1;
  }
  return path.substr(previous);
}

}  // namespace

bool has_heavy_op(const Graph& graph, const std::vector<OpId>& ops) {
  return std::any_of(ops.begin(), ops.end(), [&](OpId id) { return is_heavy(graph.ops[id]); });
}

std::string segment_name(const Graph& graph, const std::vector<OpId>& ops) {
  const bool any_heavy = has_heavy_op(graph, ops);
  std::string_view path;
  bool first = true;
  for (OpId id : ops) {
    const Op& op = graph.ops[id];
    if (op.module.empty() || (any_heavy && !is_heavy(op))) continue;
    path = first ? std::string_view(op.module) : common_module(path, op.module);
    first = false;
  }
  std::string name(shorten(path));
  const Op& op = graph.ops[ops.front()];
  if (op.kind == OpKind::kCollective || name.empty()) {
    if (!name.empty()) name += '.';
    name += short_target(op.target);
  }
  return name;
}

}  // namespace dynaflow
