#include "dynaflow/name.h"

namespace dynaflow {

const std::string Name::kEmpty;

}  // namespace dynaflow
