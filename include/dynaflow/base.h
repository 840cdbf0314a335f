#pragma once
#include <fmt/core.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace dynaflow {

/// fmt::vformat, compiled once: fmt is header-only here, and its formatting would be compiled into every
/// file.
std::string format_values(fmt::string_view form, fmt::format_args values);
/// fmt::format.
template <typename... Values>
std::string formatted(fmt::format_string<Values...> form, Values&&... values) {
  return format_values(form, fmt::make_format_args(values...));
}

/// A mistake of the caller, or a failure while running. `stage()` says which part of the pipeline found it.
class Error : public std::runtime_error {
 public:
  Error(std::string stage, const std::string& message)
      : std::runtime_error(stage + ": " + message), stage_(std::move(stage)) {}
  const std::string& stage() const { return stage_; }

 private:
  std::string stage_;
};

/// Text that cannot be read: the position (1-based) and what was expected there.
class ParseError : public Error {
 public:
  ParseError(int line, int column, const std::string& message)
      : Error("ParseError", formatted("line {}, column {}: {}", line, column, message)),
        line_(line),
        column_(column),
        reason_(message) {}
  int line() const { return line_; }
  int column() const { return column_; }
  /// What is wrong, without the position.
  const std::string& reason() const { return reason_; }

 private:
  int line_;
  int column_;
  std::string reason_;
};

/// A graph that contradicts itself (undefined value, wrong arity, impossible size).
class GraphError : public Error {
 public:
  explicit GraphError(const std::string& message) : Error("GraphError", message) {}
};

/// A strategy that schedules an op twice, never, before its input, or in a cycle.
class ScheduleError : public Error {
 public:
  explicit ScheduleError(const std::string& message) : Error("ScheduleError", message) {}
};

/// A schedule that cannot be lowered, or sizes that no part can have.
class PlanError : public Error {
 public:
  explicit PlanError(const std::string& message) : Error("PlanError", message) {}
};

/// A kernel that failed while a plan ran; the message names segment, part and stream.
class ExecutionError : public Error {
 public:
  explicit ExecutionError(const std::string& message) : Error("ExecutionError", message) {}
};

/// A parameter or buffer that is no longer what its plan was made for.
class ParameterError : public Error {
 public:
  explicit ParameterError(const std::string& message) : Error("ParameterError", message) {}
};

/// A broken invariant of this library: always a defect here, never the caller's.
class InternalError : public std::logic_error {
  using std::logic_error::logic_error;
};

}  // namespace dynaflow

/// Checks an invariant of the library itself. The remaining arguments are a format string and its values.
#define DF_CHECK(condition, ...)                                                               \
  do {                                                                                         \
    if (!(condition)) {                                                                        \
      throw ::dynaflow::InternalError(                                                         \
          ::dynaflow::formatted("{}:{}: " #condition " does not hold. ", __FILE__, __LINE__) + \
          ::dynaflow::formatted(__VA_ARGS__));                                                 \
    }                                                                                          \
  } while (false)
