#pragma once
#include <string>
#include <vector>

#include "dynaflow/graph.h"

namespace dynaflow {

/// A readable name for a set of ops: the module that holds its heavy ops, "layers.3.mlp", and for a
/// collective also the op, "layers.3.mlp.all_reduce".
std::string segment_name(const Graph& graph, const std::vector<OpId>& ops);

/// Whether any of the ops is one that a reader of a timeline looks for: a matmul, attention, an embedding.
bool has_heavy_op(const Graph& graph, const std::vector<OpId>& ops);

}  // namespace dynaflow
