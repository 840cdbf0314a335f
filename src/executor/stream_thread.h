#pragma once
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>

namespace dynaflow {

/// The thread of one stream of one frame. Parked between runs.
class StreamThread {
 public:
  /// `body` is one run of the stream; it must not throw.
  explicit StreamThread(std::function<void()> body);
  ~StreamThread();
  StreamThread(const StreamThread&) = delete;
  StreamThread& operator=(const StreamThread&) = delete;

  /// Lets the thread run its body once.
  void start();
  /// Blocks until the body that was started last is over.
  void finish();

 private:
  void loop();

  std::function<void()> body_;
  std::atomic<uint32_t> asked_{0};  // runs started; the thread parks on it
  std::atomic<uint32_t> ended_{0};  // runs over; the caller parks on it
  bool stop_ = false;               // published by asked_
  const pid_t process_ = getpid();  // whose thread it is: a forked child has none
  std::thread thread_;              // last: it reads all of the above
};

}  // namespace dynaflow
