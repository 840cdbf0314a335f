#pragma once
#include <vector>

#include "dynaflow/partition.h"

namespace dynaflow {

/// Cuts what a run launches into units: chains, which one compiled kernel can take, and ops alone.
class ChainFinder {
 public:
  explicit ChainFinder(const Partition& partition);

  /// `ops`: of one run. Each unit in program order; the units in an order in which each comes after what it
  /// needs. Chains are convex: nothing outside lies between two of their ops.
  std::vector<std::vector<OpId>> units(std::vector<OpId> ops) const;

 private:
  const Graph& graph_;
  std::vector<std::vector<OpId>> needs_;  // by OpId
  std::vector<bool> fusible_;             // by OpId
};

}  // namespace dynaflow
