#include "kernels/test/collective_worker.h"

#include <chrono>
#include <exception>
#include <stdexcept>

namespace dynaflow::test {

class CollectiveWorker::Task final : public Completion {
 public:
  explicit Task(Collective collective) : collective_(std::move(collective)) {}

  bool done() const override {
    const std::lock_guard lock(mutex_);
    return done_;
  }
  void wait() override {
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [this] { return done_; });
    if (collective_.fail) throw std::runtime_error("the all-reduce lost a peer");
  }
  void run() {
    const auto pause = std::chrono::microseconds(collective_.delay_us);
    const int64_t count = collective_.out.count();
    std::this_thread::sleep_for(pause);
    scale_range(collective_.out, collective_.in, 0, count / 2, collective_.factor);
    std::this_thread::sleep_for(pause);
    scale_range(collective_.out, collective_.in, count / 2, count, collective_.factor);
    const std::lock_guard lock(mutex_);
    done_ = true;
    ended_.notify_all();
  }

 private:
  Collective collective_;
  mutable std::mutex mutex_;
  std::condition_variable ended_;
  bool done_ = false;
};

CollectiveWorker::CollectiveWorker() : thread_([this] { loop(); }) {}

CollectiveWorker::~CollectiveWorker() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  work_.notify_one();
  thread_.join();
}

std::shared_ptr<Completion> CollectiveWorker::submit(Collective collective) {
  auto task = std::make_shared<Task>(std::move(collective));
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(task);
  }
  work_.notify_one();
  return task;
}

void CollectiveWorker::loop() {
  for (;;) {
    std::shared_ptr<Task> task;
    {
      std::unique_lock lock(mutex_);
      work_.wait(lock, [this] { return stop_ || !queue_.empty(); });
      if (queue_.empty()) return;
      task = std::move(queue_.front());
      queue_.pop_front();
    }
    task->run();
  }
}

}  // namespace dynaflow::test
