#pragma once
#include <string>
#include <vector>

#include "dynaflow/plan.h"

namespace dynaflow {

/// What a collective can hide under, or why it cannot.
struct CollectiveReport {
  RunId run = kNoId;
  std::string name;    // the run's; that of the op inside it when the run does more
  bool alone = false;  // the run does nothing else: it has a place of its own on a stream
  int part = 0;
  SizeExpr bytes;                     // of its input, over graph and part symbols
  std::vector<std::string> overlaps;  // runs that the plan lets go on meanwhile, in issue order
  std::string reason;                 // why there are none: empty when there are
};

/// For each collective of the plan, in issue order. Reads the plan alone: what may overlap, whatever the
/// timing.
std::vector<CollectiveReport> explain(const Plan& plan);

}  // namespace dynaflow
