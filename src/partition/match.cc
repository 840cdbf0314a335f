#include "partition/match.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

namespace dynaflow {

namespace {

constexpr size_t kNearMisses = 3;

std::vector<std::string_view> split_text(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  if (text.empty()) return parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

bool matches_target(const std::vector<std::string_view>& choices, const Op& op) {
  const std::string_view name = short_target(op.target);
  return std::any_of(choices.begin(), choices.end(), [&](std::string_view choice) {
    return glob_match(choice, name) || glob_match(choice, op.target);
  });
}

/// The path of the outermost module around `op` that `pattern` names, by class or by path; empty: none.
std::string_view matching_module(std::string_view pattern, const Op& op) {
  const std::vector<std::string_view> path = split_text(op.module, '.');
  const std::vector<std::string_view> types = split_text(op.module_type, '/');
  size_t length = 0;
  for (size_t i = 0; i < path.size(); ++i) {
    length += path[i].size() + (i == 0 ? 0 : 1);
    const std::string_view prefix = std::string_view(op.module).substr(0, length);
    if (glob_match(pattern, prefix) || (types.size() == path.size() && glob_match(pattern, types[i])))
      return prefix;
  }
  return {};
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0]++;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j + 1] + 1, row[j] + 1, replaced});
    }
  }
  return row[b.size()];
}

std::vector<std::string> nearest(std::string_view pattern, const std::set<std::string>& names) {
  std::vector<std::pair<size_t, std::string>> ranked;
  for (const std::string& name : names) {
    const bool contained =
        name.find(pattern) != std::string::npos || pattern.find(name) != std::string_view::npos;
    ranked.emplace_back(contained ? 0 : edit_distance(pattern, name), name);
  }
  std::sort(ranked.begin(), ranked.end());
  std::vector<std::string> result;
  for (size_t i = 0; i < std::min(ranked.size(), kNearMisses); ++i) result.push_back(ranked[i].second);
  return result;
}

/// The names that an annotation of this kind could have matched.
std::set<std::string> candidates(const Graph& graph, Annotation::Kind kind) {
  std::set<std::string> names;
  for (const Op& op : graph.ops) {
    if (kind == Annotation::Kind::kFunc) names.emplace(short_target(op.target));
    if (kind == Annotation::Kind::kMark) names.insert(op.marks.begin(), op.marks.end());
    if (kind != Annotation::Kind::kModule) continue;
    for (std::string_view type : split_text(op.module_type, '/')) names.emplace(type);
    if (!op.module.empty()) names.insert(op.module);
  }
  names.erase("-");
  return names;
}

class Matcher {
 public:
  explicit Matcher(const Graph& graph) : graph_(graph), ops_(launched_ops(graph)) {
    result_.group.assign(graph.ops.size(), -1);
    result_.tags.resize(graph.ops.size());
    in_region_.resize(graph.ops.size());
  }

  void apply(const Annotation& annotation) {
    bool matched = false;
    switch (annotation.kind) {
      case Annotation::Kind::kFunc:
        matched = match_func(annotation);
        break;
      case Annotation::Kind::kModule:
        matched = match_module(annotation);
        break;
      case Annotation::Kind::kMark:
        matched = match_mark(annotation);
        break;
    }
    if (matched) return;
    const std::string pattern = annotation.patterns.empty() ? "" : annotation.patterns.front();
    result_.unmatched.push_back({annotation, nearest(pattern, candidates(graph_, annotation.kind))});
  }

  Matches take() {
    for (std::vector<std::string>& tags : result_.tags) {
      std::sort(tags.begin(), tags.end());
      tags.erase(std::unique(tags.begin(), tags.end()), tags.end());
    }
    return std::move(result_);
  }

 private:
  bool match_func(const Annotation& annotation) {
    const size_t length = annotation.patterns.size();
    std::vector<std::vector<std::string_view>> choices;
    for (const std::string& pattern : annotation.patterns) choices.push_back(split_text(pattern, '|'));
    bool matched = false;
    for (size_t at = 0; length > 0 && at + length <= ops_.size(); ++at) {
      size_t same = 0;
      while (same < length && matches_target(choices[same], graph_.ops[ops_[at + same]])) ++same;
      if (same < length) continue;
      const int group = next_group_++;
      for (size_t i = 0; i < length; ++i) assign(ops_[at + i], group, annotation);
      at += length - 1;
      matched = true;
    }
    return matched;
  }

  bool match_module(const Annotation& annotation) {
    std::map<std::string_view, int> instances;
    for (OpId id : ops_) {
      const std::string_view path = matching_module(annotation.patterns.at(0), graph_.ops[id]);
      if (path.empty()) continue;
      const auto [entry, added] = instances.try_emplace(path, next_group_);
      if (added) ++next_group_;
      assign(id, entry->second, annotation);
    }
    return !instances.empty();
  }

  bool match_mark(const Annotation& annotation) {
    bool matched = false;
    bool inside = false;
    for (OpId id : ops_) {
      const std::vector<std::string>& marks = graph_.ops[id].marks;
      const bool here = std::find(marks.begin(), marks.end(), annotation.patterns.at(0)) != marks.end();
      if (here && !inside) ++next_group_;
      if (here) assign(id, next_group_ - 1, annotation);
      inside = here;
      matched |= here;
    }
    return matched;
  }

  /// The first annotation that matches an op decides its segment; every one adds its tags. The first that
  /// calls its rows independent decides its region.
  void assign(OpId id, int group, const Annotation& annotation) {
    if (result_.group[id] < 0) result_.group[id] = group;
    result_.tags[id].insert(result_.tags[id].end(), annotation.tags.begin(), annotation.tags.end());
    if (!annotation.rows_independent || in_region_[id]) return;
    in_region_[id] = true;
    const auto [entry, added] = region_of_group_.try_emplace(group, result_.regions.size());
    if (added) result_.regions.push_back({region_name(annotation, graph_.ops[id]), {}});
    result_.regions[entry->second].ops.push_back(id);
  }

  /// How messages call a match: by its module's path, else by what was asked for and where it begins.
  static std::string region_name(const Annotation& annotation, const Op& first) {
    if (annotation.kind == Annotation::Kind::kModule)
      return std::string(matching_module(annotation.patterns.at(0), first));
    std::string name;
    for (const std::string& pattern : annotation.patterns) name += (name.empty() ? "" : ", ") + pattern;
    return first.module.empty() ? name : formatted("{} in {}", name, first.module);
  }

  const Graph& graph_;
  std::vector<OpId> ops_;
  Matches result_;
  std::vector<bool> in_region_;            // by OpId
  std::map<int, size_t> region_of_group_;  // by match: its region in the result
  int next_group_ = 0;
};

}  // namespace

bool glob_match(std::string_view pattern, std::string_view text) {
  size_t p = 0;
  size_t t = 0;
  size_t star = std::string_view::npos;
  size_t resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::vector<OpId> launched_ops(const Graph& graph) {
  std::vector<OpId> ids;
  for (OpId id = 0; id < static_cast<OpId>(graph.ops.size()); ++id)
    if (graph.ops[id].kind != OpKind::kView) ids.push_back(id);
  return ids;
}

Matches match(const Graph& graph, const std::vector<Annotation>& annotations) {
  Matcher matcher(graph);
  for (const Annotation& annotation : annotations) matcher.apply(annotation);
  return matcher.take();
}

}  // namespace dynaflow
