#pragma once
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "dynaflow/device.h"
#include "kernels/test/tensor_ops.h"

namespace dynaflow::test {

/// An all-reduce that was started.
struct Collective {
  View out;
  View in;
  float factor = 1;
  int64_t delay_us = 0;  // slept before each half
  bool fail = false;
};

/// Runs collectives one after the other on a thread of its own, as a process group with one thread does.
class CollectiveWorker {
 public:
  CollectiveWorker();
  ~CollectiveWorker();
  CollectiveWorker(const CollectiveWorker&) = delete;
  CollectiveWorker& operator=(const CollectiveWorker&) = delete;

  std::shared_ptr<Completion> submit(Collective collective);

 private:
  class Task;
  void loop();

  std::mutex mutex_;
  std::condition_variable work_;
  std::deque<std::shared_ptr<Task>> queue_;
  bool stop_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace dynaflow::test
