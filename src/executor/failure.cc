#include "executor/frame.h"

// What a frame does when a run goes wrong: keep the first error, find the work it belongs to, tell the
// caller.

namespace dynaflow {

namespace {

std::string message_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& known) {
    return known.what();
  } catch (...) {
    return "an exception that is no std::exception";
  }
}

/// "layers.3.mlp[1]" for the plan's "mb1/layers.3.mlp", "layers.3.mlp[0:2]" for several parts in one launch,
/// and the plain name for what has no parts.
std::string name_of(const Run& run) {
  const size_t slash = run.name.find('/');
  if (slash == std::string::npos || !run.name.starts_with("mb")) return run.name;
  const std::string name = run.name.substr(slash + 1);
  if (run.last_part - run.first_part == 1) return formatted("{}[{}]", name, run.first_part);
  return formatted("{}[{}:{}]", name, run.first_part, run.last_part);
}

}  // namespace

void RunFrame::fail(const Step& step) noexcept {
  const std::lock_guard lock(failure_mutex_);
  if (failed_.load(std::memory_order_relaxed)) return;
  failure_ = {std::current_exception(), step.kind == Instruction::Kind::kLaunch ? step.id : kNoId,
              step.stream};
  failed_.store(true);
}

void RunFrame::blame_async_work() noexcept {
  if (failure_.run != kNoId) return;
  for (RunId run : programs_.async_runs) {
    if (!completions_[run]) continue;
    try {
      completions_[run]->wait();
    } catch (...) {
      failure_ = {std::current_exception(), run, plan_.runs[run].stream};
      return;
    }
  }
}

std::string RunFrame::describe(const Failure& failure) const {
  const std::string what = message_of(failure.error);
  const std::string& stream = plan_.streams[failure.stream].name;
  if (failure.run == kNoId) return formatted("stream '{}' failed: {}", stream, what);
  return formatted("{} failed on stream '{}' (run {} of {}): {}", name_of(plan_.runs[failure.run]), stream,
                   failure.run + 1, plan_.runs.size(), what);
}

void RunFrame::raise() {
  const Failure failure = std::exchange(failure_, {});
  const std::string message = describe(failure);
  try {
    std::rethrow_exception(failure.error);
  } catch (...) {
    std::throw_with_nested(ExecutionError(message));
  }
}

}  // namespace dynaflow
