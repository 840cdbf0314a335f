#pragma once
#include <vector>

#include "dynaflow/plan.h"

namespace dynaflow {

/// Buffers such that each follows those it lies above. Throws PlanError on a cycle.
std::vector<BufferId> bottom_up(const std::vector<Buffer>& buffers);

}  // namespace dynaflow
