#pragma once
#include <vector>

#include "plan/issue_order.h"

namespace dynaflow {

/// What each run of the issue launches, as ids of Plan::op: its segments' ops in order, or the one op that
/// replaces them, which is put into plan.replacing.
std::vector<std::vector<OpId>> choose_launches(const Schedule& schedule, const Issue& issue, Plan& plan);

}  // namespace dynaflow
