#pragma once
#include <string>
#include <vector>

#include "dynaflow/graph.h"

namespace dynaflow {

/// How a value depends on the split symbol s: which rows of it belong to which micro-batch.
struct Layout {
  enum class Kind : uint8_t {
    kWhole,       // the same for every part: does not depend on s
    kShard,       // dimension `dim` has size outer * s * inner; part rows are those of the middle factor
    kCoordinate,  // kShard whose elements are base + row index: an arange(s), which must index its own rows
                  // only
    kMixed,       // depends on s in a way that no part can compute alone
  };
  Kind kind = Kind::kWhole;
  int dim = 0;
  SizeExpr outer = 1;
  SizeExpr inner = 1;

  bool is_sharded() const { return kind == Kind::kShard || kind == Kind::kCoordinate; }
  bool operator==(const Layout&) const = default;
};
std::string print(const Layout& layout);

/// What splitting along the batch symbol means for each op.
enum class SplitForm : uint8_t {
  kWhole,   // independent of the symbol: runs once, every part uses the result
  kSplit,   // runs once per part on the part's rows
  kMerged,  // depends on the symbol but cannot be split: runs once on all rows, between a join and a split
};

struct SplitAnalysis {
  std::vector<Layout> layouts;   // by ValueId
  std::vector<SplitForm> forms;  // by OpId
  std::vector<std::string>
      reasons;  // by OpId; why it is kMerged: "no rule for aten.sort.default", else empty
};

/// Propagates layouts op by op through the rule table (src/graph/split_rules*.cc). With an empty batch symbol
/// every op is kWhole. A pure function; never throws for an op it does not know: that op is kMerged.
/// An op is kSplit only if its rule proves that computing each part's rows alone, with s replaced by the
/// part's rows in every size, gives exactly those rows of the result.
SplitAnalysis analyze_split(const Graph& graph);

/// One row of the rule table, for documentation and tests: the targets that have a rule.
std::vector<std::string> split_rule_targets();

}  // namespace dynaflow
