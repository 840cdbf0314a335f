#pragma once
#include <string>
#include <vector>

#include "graph/split_rules.h"

namespace dynaflow::split {

/// Regions that treat rows independently by somebody's word, where no rule can show it: which of their ops
/// that word splits, and which of their values are private to a part. Asked op by op, in passes over the
/// graph, for what an op may do depends on who reads its results further down.
class Regions {
 public:
  Regions(const Graph& graph, const std::vector<IndependentRegion>& regions);

  /// Begins a pass. `forced`: by OpId, why it must run merged, or empty.
  void begin(const std::vector<std::string>& forced);
  /// A rule's answer on an op, or what its region's word makes of it. In program order.
  RuleResult judge(OpId id, const RuleGroup* group, RuleResult proof, const SplitAnalysis& sofar);
  /// Whether this pass learnt of an op, or a region, for which the word does not hold: what else it found is
  /// void.
  bool changed() const { return changed_; }
  /// The op changes in place what its region makes, and nothing else: each part changes its own.
  bool changes_own(OpId id) const;
  /// A result of the op is changed in place in its region: each part needs its own, rows or not.
  bool is_changed_inside(OpId id) const;
  /// The op is split by its region's word alone.
  bool asserted(OpId id) const { return asserted_[id]; }
  /// The row numbers in `value` are made in the region of the op of `id`: a part counts its own rows, for it
  /// runs the region as if there were no others.
  bool counts_in_part(OpId id, ValueId value, const SplitAnalysis& sofar) const;
  /// Adds what came of each region, and says so in the reasons of ops that stay merged.
  void finish(SplitAnalysis& analysis) const;

 private:
  int region_of(OpId id) const;
  void add_outside_reader(ValueId value, int region, const std::string& reader);
  bool reads_own(OpId id, bool tells_numbers, const SplitAnalysis& sofar) const;
  std::string obstacle(OpId id, const SplitAnalysis& sofar) const;
  RuleResult assert_rows(OpId id, int region);
  RuleResult refuse_region(int region, std::string why);

  const Graph& graph_;
  std::vector<RegionSplit> regions_;
  std::vector<int> member_;                  // by OpId: the region that it is in, or kNoId
  std::vector<bool> apart_;                  // by OpId: it runs as if it were outside
  std::vector<bool> asserted_;               // by OpId
  std::vector<bool> changed_inside_;         // by storage root: an op of its region changes it in place
  std::vector<std::string> outside_reader_;  // by storage root made in a region; empty: only that region
  bool changed_ = false;
};

}  // namespace dynaflow::split
