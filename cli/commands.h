#pragma once
#include <CLI/CLI.hpp>

/// The subcommands of `dynaflow`. Each registers itself with `app`; when the command line asks for it, it
/// writes to standard output and sets `status`. It throws InputError, or a dynaflow::Error, for what it
/// cannot use.
namespace dynaflow::cli {

/// Exit statuses.
inline constexpr int kDone = 0;
inline constexpr int kNotSafe = 1;
inline constexpr int kBadInput = 2;
inline constexpr int kDefect = 3;  // of this program

/// `inspect FILE`: what is in a graph or in a plan.
void add_inspect(CLI::App& app, int& status);
/// `plan GRAPH`: the plan of a built-in strategy.
void add_plan(CLI::App& app, int& status);
/// `verify PLAN...`: whether plans are right whatever the timing.
void add_verify(CLI::App& app, int& status);

}  // namespace dynaflow::cli
