#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "dynaflow/partition.h"

namespace dynaflow {

/// Whether `text` matches `pattern`, where '*' stands for any run of characters.
bool glob_match(std::string_view pattern, std::string_view text);

/// What the annotations say of each op.
struct Matches {
  std::vector<int> group;                      // by OpId: the match it belongs to, or -1
  std::vector<std::vector<std::string>> tags;  // by OpId: sorted
  std::vector<Unmatched> unmatched;
  std::vector<IndependentRegion> regions;  // the matches of annotations that call rows independent
};
Matches match(const Graph& graph, const std::vector<Annotation>& annotations);

/// Ops that launch something, in program order.
std::vector<OpId> launched_ops(const Graph& graph);

}  // namespace dynaflow
