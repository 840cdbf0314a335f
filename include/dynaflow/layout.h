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
    kPrivate,     // each part has its own, which are no rows of a whole; only its region may read it, or
                  // readers of the host's state
  };
  Kind kind = Kind::kWhole;
  int dim = 0;
  SizeExpr outer = 1;
  SizeExpr inner = 1;

  bool is_sharded() const { return kind == Kind::kShard || kind == Kind::kCoordinate; }
  /// Each part has a tensor of its own, or a slice of one.
  bool is_per_part() const { return is_sharded() || kind == Kind::kPrivate; }
  bool operator==(const Layout&) const = default;
};
std::string print(const Layout& layout);

/// What splitting along the batch symbol means for each op.
enum class SplitForm : uint8_t {
  kWhole,   // independent of the symbol: runs once, every part uses the result
  kSplit,   // runs once per part on the part's rows
  kMerged,  // depends on the symbol but cannot be split: runs once on all rows, between a join and a split
};

/// Ops that, together, compute each row of the batch from the same row of what they read, by the word of
/// whoever annotated the model. Where a rule refuses such an op it is split all the same.
struct IndependentRegion {
  std::string name;       // the module, mark or ops that it is, for messages
  std::vector<OpId> ops;  // launched ops, in program order; views go with what they look at
  bool operator==(const IndependentRegion&) const = default;
};

/// What came of a region's word.
struct RegionSplit {
  IndependentRegion region;
  std::vector<OpId> asserted;  // what the word has to be true for: ops that no rule would split, what reads
                               // values private to a part, and row numbers counted in a part; views included
  std::string refusal;         // why the word does not help, else empty
  bool operator==(const RegionSplit&) const = default;
};

struct SplitAnalysis {
  std::vector<Layout> layouts;   // by ValueId
  std::vector<SplitForm> forms;  // by OpId
  std::vector<std::string>
      reasons;  // by OpId; why it is kMerged: "no rule for aten.sort.default", else empty
  std::vector<RegionSplit> regions;  // as they were given
};

/// Propagates layouts op by op through the rule table (src/graph/split_rules*.cc). With an empty batch symbol
/// every op is kWhole. A pure function; never throws for an op it does not know: that op is kMerged.
/// An op is kSplit only if its rule proves that computing each part's rows alone, with s replaced by the
/// part's rows in every size, gives exactly those rows of the result; or if it is in one of `regions`, of
/// which an op may be in one only. What a region gives to ops outside of it must have rows; what has none is
/// private to each part. Effects, collectives and inputs without rows stay reasons not to split; but an op
/// that reads the host's state is split by the host's word: given a part's state it computes that part's
/// rows.
SplitAnalysis analyze_split(const Graph& graph, const std::vector<IndependentRegion>& regions = {});

/// One row of the rule table, for documentation and tests: the targets that have a rule.
std::vector<std::string> split_rule_targets();

}  // namespace dynaflow
