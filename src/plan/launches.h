#pragma once
#include <vector>

#include "dynaflow/fusion.h"
#include "plan/issue_order.h"

namespace dynaflow {

/// What each run of the issue launches, as ids of Plan::op: its segments' ops in order, or the one op that
/// replaces them, or chains of them, which is put into plan.replacing.
std::vector<std::vector<OpId>> choose_launches(const Schedule& schedule, const Issue& issue,
                                               const Fusion& fusion, Plan& plan);

}  // namespace dynaflow
