#pragma once
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "dynaflow/plan.h"
#include "proof/oracle_memory.h"

namespace dynaflow::test {

/// What one launch touches, in the plan's memory and in the graph's.
struct Launch {
  std::vector<SlotId> reads;
  std::vector<SlotId> relied_on;  // those reads whose bytes it does not write itself
  std::vector<SlotId> writes;
  Mark right = 0;  // the digest of what it should read
};

/// Where an actor is: an instruction, and within a run a launch that may have begun.
struct Actor {
  size_t next = 0;
  size_t launch = 0;
  bool began = false;
  Mark relied_on = 0;  // what its launch's inputs were when it began
};

/// What is known of an event.
struct Recorded {
  bool recorded = false;
  StreamId stream = kNoId;
  size_t done = 0;  // items of an asynchronous stream that it stands for
};

/// All that an interleaving has come to.
struct State {
  Memory memory;
  std::vector<Actor> actors;   // threads, then asynchronous streams
  std::vector<size_t> queued;  // by stream
  std::vector<Recorded> events;
  std::vector<bool> freed;  // by slot

  /// States of one key go on alike.
  Mark key() const;
};

/// A plan at one batch size, and the steps that an interleaving of it can take.
class OracleModel {
 public:
  OracleModel(PlanPtr plan, const std::vector<int64_t>& symbols);

  /// A slot that leaves its memory at this size, or empty.
  const std::string& misplaced() const { return misplaced_; }
  State start() const;
  size_t actors() const { return programs_.size(); }
  /// Whether an actor can go on.
  bool enabled(const State& state, size_t actor) const;
  /// The actors that can go on.
  std::vector<size_t> choices(const State& state) const;
  /// Lets an actor go on: what misbehaves, or empty.
  std::string take(State& state, size_t actor) const;
  /// What is wrong once nothing can go on, or empty.
  std::string end(const State& state) const;

 private:
  void bind_sizes(const std::vector<int64_t>& symbols);
  void place_slots(const std::vector<int64_t>& symbols);
  void make_programs();
  void read_launches();
  Launch read_launch(const OpLaunch& call) const;
  void fill_arguments(Memory& own);
  void find_right_reads();
  OpId place_in_program(OpId op) const;
  Area area(const Slot& slot, int64_t base) const;
  std::pair<int, int> own_range(const Slot& slot) const;
  Area own_area(const Slot& slot, std::pair<int, int> range) const;
  int64_t value(const SizeExpr& expr, int first, int last) const;
  int64_t value(const SizeExpr& expr) const { return value(expr, 0, plan_->cut.parts); }

  const Step* next(const State& state, size_t actor) const;
  std::string take_launch(State& state, Actor& actor, RunId run) const;
  Mark digest(const State& state, const std::vector<SlotId>& slots) const;

  PlanPtr plan_;
  std::vector<bool> elementwise_;  // by OpId
  std::map<std::string, int64_t, std::less<>> sizes_;
  std::vector<int64_t> rows_;      // of each part
  std::vector<Area> areas_;        // by slot, in the plan's memory
  std::vector<Area> own_areas_;    // by slot, in memory where each root value is alone
  std::vector<int64_t> shifts_;    // by slot: from there to the plan's memory, for the caller's tensors
  std::vector<SlotId> tensor_of_;  // by slot: the kernel's tensor under it, or kNoId
  int64_t bytes_ = 0;
  int64_t own_bytes_ = 0;
  std::string misplaced_;
  std::vector<std::vector<Launch>> launches_;  // by run
  Memory initial_;
  std::vector<Mark> right_outputs_;
  std::vector<Program> programs_;  // of threads, then of asynchronous streams
  std::vector<size_t> queue_of_;   // by stream: its actor when it is asynchronous, else 0
  size_t threads_ = 0;
};

}  // namespace dynaflow::test
