#pragma once
#include <vector>

#include "dynaflow/plan.h"

namespace dynaflow {

/// Whether the op's own kernel writes into bytes that the plan gives it; else it allocates them.
bool writes_where_told(const Op& op);

/// Which values lie in the bytes of an input of the op that makes them.
struct Overwrites {
  std::vector<ValueId> root;  // by ValueId: whose storage it is
  std::vector<bool> op;       // by OpId: it writes its result over an input
};

/// A collective, and an op that works element by element, may overwrite an input that nothing else ever reads
/// and that lies as the result does. `plan`: graph and replacing are filled; ops that a kernel replaces, and
/// what they make, stay as they are. `inputs`: of the graph. `layouts`: by ValueId.
Overwrites find_overwrites(const Plan& plan, const OpInputs& inputs, const std::vector<Layout>& layouts);

}  // namespace dynaflow
