#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "dynaflow/verify.h"

namespace dynaflow {

/// A point of a plan: launch `launch` of step `step` of its StepOrder.
struct Site {
  int32_t step = kNoId;
  int32_t launch = 0;
};

/// The launches and frees of a plan in one order that its timing could produce, with the vector clock of
/// each.
///
/// Actors are the issuing thread, which runs the host streams; every asynchronous stream; and every thread. A
/// clock says how many steps of each actor are surely over before a step begins. The issuing thread learns of
/// an asynchronous stream's progress by waits only.
class StepOrder {
 public:
  /// Walks the plan to its end, or to a deadlock.
  explicit StepOrder(const Plan& plan);

  const std::vector<Step>& steps() const { return steps_; }
  const std::optional<Violation>& deadlock() const { return deadlock_; }
  /// `a` is over before `b` begins, whatever the timing.
  bool before(const Site& a, const Site& b) const {
    return a.step == b.step ? a.launch < b.launch : knows(clocks_, b.step, a.step);
  }
  /// Step `a` is over before every step later than `now` begins, and before what is left of `now`.
  bool before_all_after(int32_t a, int32_t now) const { return knows(floors_, now, a); }

 private:
  using Clock = std::vector<uint32_t>;  // by actor
  /// A thread of the host, and how far it has come.
  struct Thread {
    Program code;
    size_t next = 0;
    size_t actor = 0;
  };
  struct Event {
    bool recorded = false;
    StreamId recorder = kNoId;
    Clock clock;
  };

  void make_threads();
  bool blocked(const Thread& thread) const;
  Thread* next_thread();
  void take(Thread& thread);
  void add_step(const Step& step, size_t actor);
  Clock floor(size_t actor) const;
  void tell_deadlock();
  bool knows(const std::vector<uint32_t>& clocks, int32_t step, int32_t other) const {
    const auto index = static_cast<size_t>(other);
    return clocks[static_cast<size_t>(step) * clock_.size() + actor_[index]] >= tick_[index];
  }

  const Plan& plan_;
  std::vector<size_t> actor_of_;  // by stream
  std::vector<Thread> threads_;   // the issuing thread first
  std::vector<Event> events_;
  std::vector<Clock> clock_;  // by actor: what it knows now
  std::vector<Step> steps_;
  std::vector<size_t> actor_;     // by step
  std::vector<uint32_t> tick_;    // by step: its number among its actor's, from 1
  std::vector<uint32_t> clocks_;  // by step and actor
  std::vector<uint32_t> floors_;  // by step and actor: what every later step will know at least
  std::optional<Violation> deadlock_;
};

}  // namespace dynaflow
