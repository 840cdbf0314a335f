#pragma once
#include <ATen/core/ivalue.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "torch/prepared.h"

namespace dynaflow {

/// Lets one run at a time through, in order of arrival: every rank then issues its collectives in the same
/// order.
class Turnstile {
 public:
  /// Holds the turn while it lives.
  class Turn {
   public:
    /// Waits for its turn. Throws ExecutionError when this thread has it already.
    explicit Turn(Turnstile& turnstile);
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    Turnstile& turnstile_;
  };

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t next_ticket_ = 0;
  uint64_t serving_ = 0;
  std::thread::id owner_;
};

/// Knows how many steps are in flight, and can keep further ones out for good. An interpreter that ends kills
/// the threads that come back to it while they unwind C++ frames, which aborts the process: no step may be
/// about to come back then.
class Gate {
 public:
  /// A step in flight. Once the gate is closed its constructor never returns but to the thread that closed
  /// it.
  class Pass {
   public:
    explicit Pass(Gate& gate);
    ~Pass() { gate_.inside_.fetch_sub(1); }
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;

   private:
    Gate& gate_;
  };

  /// Lets no more steps in, and waits until those in flight have ended. False: `limit` was over before.
  bool close(std::chrono::milliseconds limit);

 private:
  std::atomic<int64_t> inside_ = 0;
  std::atomic<std::thread::id> closed_by_;  // of no thread: open
};

/// What the engines of one compilation share: their communicators, their compiled kernels, and the way to the
/// host system's state.
class Runtime : public torch::CustomClassHolder {
 public:
  /// Collectives of graph group `name` go to the process group registered as `queue_name`. `fifo`: it
  /// executes them first in, first out. Adding the same again changes nothing. Throws PlanError when there is
  /// no such process group.
  void add_group(std::string name, const std::string& queue_name, bool fifo);
  /// Plans may launch the compiled kernel of `target`, which lies in an AOTInductor package at `path`. Adding
  /// it again changes nothing. Throws PlanError when the file is none.
  void add_kernel(const std::string& target, const std::string& path);
  /// Engines made from now on have the host take the state of some parts by this op of the dispatcher, before
  /// kernels that read it: "name(int step, int first_part, int last_part) -> ()".
  void set_context_op(std::string name);
  std::string context_op() const;
  /// Why a group is broken, or empty.
  std::string broken() const;
  /// For the end of the process: see Gate::close.
  bool close(int64_t limit_ms) { return gate_.close(std::chrono::milliseconds(limit_ms)); }

  Groups groups() const;
  CompiledKernels kernels() const;
  Turnstile& turnstile() { return turnstile_; }
  Gate& gate() { return gate_; }

 private:
  mutable std::mutex mutex_;
  Groups groups_;
  CompiledKernels kernels_;
  std::string context_op_;
  Turnstile turnstile_;
  Gate gate_;
};

}  // namespace dynaflow
