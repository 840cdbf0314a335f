#include "plan/verify/order.h"

#include <algorithm>
#include <limits>

namespace dynaflow {

namespace {

using Kind = Instruction::Kind;

void join(std::vector<uint32_t>& clock, const std::vector<uint32_t>& other) {
  for (size_t i = 0; i < clock.size(); ++i) clock[i] = std::max(clock[i], other[i]);
}

/// The run that a thread launches next: threads are walked in issue order where waits allow it, so that few
/// bytes are in use at a time.
RunId next_run(const Program& code, size_t from) {
  for (size_t i = from; i < code.size(); ++i)
    if (code[i].kind == Kind::kLaunch) return code[i].id;
  return std::numeric_limits<RunId>::max();
}

}  // namespace

StepOrder::StepOrder(const Plan& plan) : plan_(plan), events_(static_cast<size_t>(plan.events)) {
  make_threads();
  clock_.assign(clock_.size(), Clock(clock_.size(), 0));
  while (Thread* thread = next_thread()) take(*thread);
  const bool ended = std::all_of(threads_.begin(), threads_.end(),
                                 [](const Thread& thread) { return thread.next == thread.code.size(); });
  if (!ended) tell_deadlock();
}

void StepOrder::make_threads() {
  size_t actors = 1;
  threads_.push_back({merge_streams(plan_, [](const Stream& s) { return s.kind != StreamKind::kThread; })});
  for (const Stream& stream : plan_.streams) {
    actor_of_.push_back(stream.kind == StreamKind::kHost ? 0 : actors++);
    if (stream.kind != StreamKind::kThread) continue;
    const auto own = [&](const Stream& other) { return &other == &stream; };
    threads_.push_back({merge_streams(plan_, own), 0, actor_of_.back()});
  }
  clock_.resize(actors);
}

bool StepOrder::blocked(const Thread& thread) const {
  const Step& step = thread.code[thread.next];
  return step.kind == Kind::kWait && !events_[static_cast<size_t>(step.id)].recorded;
}

StepOrder::Thread* StepOrder::next_thread() {
  Thread* chosen = nullptr;
  RunId least = 0;
  for (Thread& thread : threads_) {
    if (thread.next == thread.code.size() || blocked(thread)) continue;
    const RunId run = next_run(thread.code, thread.next);
    if (chosen != nullptr && run >= least) continue;
    chosen = &thread;
    least = run;
  }
  return chosen;
}

void StepOrder::take(Thread& thread) {
  const Step& step = thread.code[thread.next++];
  const size_t actor = actor_of_[static_cast<size_t>(step.stream)];
  const bool async = actor != thread.actor;
  switch (step.kind) {
    case Kind::kLaunch:
      if (async) join(clock_[actor], clock_[thread.actor]);
      add_step(step, actor);
      break;
    case Kind::kFree:
      add_step(step, actor);
      break;
    case Kind::kRecord: {
      Event& event = events_[static_cast<size_t>(step.id)];
      event = {true, step.stream, clock_[actor]};
      if (async) join(event.clock, clock_[thread.actor]);
      break;
    }
    case Kind::kWait: {
      const Event& event = events_[static_cast<size_t>(step.id)];
      // An asynchronous stream is first in, first out; for another's work the issuing thread waits.
      if (!async || event.recorder != step.stream) join(clock_[thread.actor], event.clock);
      break;
    }
  }
}

void StepOrder::add_step(const Step& step, size_t actor) {
  steps_.push_back(step);
  actor_.push_back(actor);
  clocks_.insert(clocks_.end(), clock_[actor].begin(), clock_[actor].end());
  tick_.push_back(++clock_[actor][actor]);
  const Clock least = floor(actor);
  floors_.insert(floors_.end(), least.begin(), least.end());
}

/// What the rest of the step that `actor` is in, and every later step, will know at least.
StepOrder::Clock StepOrder::floor(size_t actor) const {
  Clock least = clock_[actor];
  for (const Thread& thread : threads_) {
    if (thread.next == thread.code.size()) continue;
    // Work that the issuing thread starts knows what that thread knows, and its stream's past besides.
    for (size_t i = 0; i < least.size(); ++i) least[i] = std::min(least[i], clock_[thread.actor][i]);
  }
  return least;
}

void StepOrder::tell_deadlock() {
  std::string waits;
  for (const Thread& thread : threads_) {
    if (thread.next == thread.code.size()) continue;
    const Step& step = thread.code[thread.next];
    const RunId run = next_run(thread.code, thread.next);
    const std::string before =
        run < static_cast<RunId>(plan_.runs.size()) ? " before '" + plan_.runs[run].name + "'" : "";
    waits += formatted("{}stream '{}' waits for event {}{}", waits.empty() ? "" : "; ",
                       plan_.streams[static_cast<size_t>(step.stream)].name, step.id, before);
  }
  deadlock_ = Violation{Violation::Kind::kDeadlock, {}, {}, formatted("deadlock: {}", waits)};
}

}  // namespace dynaflow
