#pragma once
#include <vector>

#include "dynaflow/graph.h"

namespace dynaflow {

/// By OpId, for ops that launch something: the ops that must come before it, by what they read, write and
/// share; an op may occur twice.
std::vector<std::vector<OpId>> dependencies(const Graph& graph);

}  // namespace dynaflow
