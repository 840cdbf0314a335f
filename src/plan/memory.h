#pragma once
#include <vector>

#include "plan/storage.h"

namespace dynaflow {

/// Gives every arena storage a buffer. Two buffers share bytes only when, whatever the timing, every access
/// of one is finished before the first write of the other. Placed by first fit, largest first, at the sizes
/// seen at capture; the order found is kept as `above` edges, so that the packing is legal at every size.
void place_buffers(StoragePlanner& planner, const HappensBefore& order, Plan& plan);

/// Puts a free of each kernel-made tensor after the run that is last to use it, where one run surely is.
void place_frees(const StoragePlanner& planner, const HappensBefore& order, Plan& plan);

}  // namespace dynaflow
