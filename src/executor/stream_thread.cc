#include "executor/stream_thread.h"

#include <pthread.h>

namespace dynaflow {

// Stores that a parked thread is notified of are sequentially consistent on purpose: notify looks for waiters
// before it makes the system call, and must not do so ahead of the store.

StreamThread::StreamThread(std::function<void()> body)
    : body_(std::move(body)), thread_([this] { loop(); }) {}

StreamThread::~StreamThread() {
  if (getpid() != process_) {
    thread_.detach();
    return;
  }
  stop_ = true;
  start();
  thread_.join();
}

void StreamThread::start() {
  asked_.fetch_add(1);
  asked_.notify_one();
}

void StreamThread::finish() {
  const uint32_t last = asked_.load(std::memory_order_relaxed);
  for (uint32_t seen = ended_.load(); seen != last; seen = ended_.load()) ended_.wait(seen);
}

void StreamThread::loop() {
  pthread_setname_np(pthread_self(), "dynaflow");  // for debuggers and top
  for (uint32_t turn = 0;; ++turn) {
    asked_.wait(turn);
    if (stop_) return;
    body_();
    ended_.store(turn + 1);
    ended_.notify_one();
  }
}

}  // namespace dynaflow
