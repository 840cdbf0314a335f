#pragma once
#include <ATen/core/ivalue.h>

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

/// What the engines of one process share: their communicators.
class Runtime : public torch::CustomClassHolder {
 public:
  /// Collectives of graph group `name` go to the process group registered as `queue_name`. `fifo`: it
  /// executes them first in, first out. Adding the same again changes nothing. Throws PlanError when there is
  /// no such process group.
  void add_group(std::string name, const std::string& queue_name, bool fifo);
  /// Why a group is broken, or empty.
  std::string broken() const;

  Groups groups() const;
  Turnstile& turnstile() { return turnstile_; }

 private:
  mutable std::mutex mutex_;
  Groups groups_;
  Turnstile turnstile_;
};

}  // namespace dynaflow
