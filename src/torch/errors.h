#pragma once
#include <c10/util/Exception.h>

#include <exception>
#include <string>

namespace dynaflow {

/// What `error` says, without the C++ backtrace that torch appends.
inline std::string error_text(const std::exception& error) {
  if (const auto* torch_error = dynamic_cast<const c10::Error*>(&error)) {
    return torch_error->what_without_backtrace();
  }
  return error.what();
}

}  // namespace dynaflow
