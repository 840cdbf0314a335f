#include <fmt/format.h>

#include "dynaflow/base.h"

namespace dynaflow {

std::string format_values(fmt::string_view form, fmt::format_args values) {
  return fmt::vformat(form, values);
}

}  // namespace dynaflow
