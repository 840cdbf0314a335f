#include <atomic>
#include <exception>

#include "dynaflow/device.h"

namespace dynaflow {

namespace {

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// A flag that threads wait for, and the asynchronous work that was last in the recorder's queue.
class CpuEvent final : public DeviceEvent {
 public:
  explicit CpuEvent(bool spin) : spin_(spin) {}

  void reset() override {
    work_.reset();
    recorder_ = nullptr;
    recorded_.store(0, std::memory_order_relaxed);
  }
  void record(const DeviceStream* recorder, const std::shared_ptr<Completion>& work) {
    work_ = work;
    recorder_ = recorder;
    // Sequentially consistent: notify looks for waiters first, which must not happen ahead of the store.
    recorded_.store(1);
    recorded_.notify_all();
  }
  /// Blocks until the event is recorded. A waiter on another thread may well come first.
  void await_record() const {
    if (spin_)
      for (int i = 0; i < kSpins && recorded_.load(std::memory_order_acquire) == 0; ++i) relax();
    recorded_.wait(0, std::memory_order_acquire);
  }
  /// Only after await_record.
  const DeviceStream* recorder() const { return recorder_; }
  const std::shared_ptr<Completion>& work() const { return work_; }

 private:
  static constexpr int kSpins = 2000;  // some 50 us: more than a handoff takes, less than a time slice

  const bool spin_;
  std::atomic<int32_t> recorded_{0};
  const DeviceStream* recorder_ = nullptr;
  std::shared_ptr<Completion> work_;  // null: nothing was left running
};

/// The issuing thread runs everything itself, and ends it before it goes on.
class HostStream final : public DeviceStream {
 public:
  void launched(std::shared_ptr<Completion> work) override {
    if (work) work->wait();
  }
  void record(DeviceEvent& event) override { static_cast<CpuEvent&>(event).record(this, nullptr); }
  void wait(DeviceEvent& event) override {
    const auto& cpu_event = static_cast<const CpuEvent&>(event);
    cpu_event.await_record();
    if (cpu_event.work()) cpu_event.work()->wait();
  }
  void synchronize() override {}
};

/// Work that runs on its own, first in first out: the kernels see to the order, this keeps what is not over.
class AsyncStream final : public DeviceStream {
 public:
  void launched(std::shared_ptr<Completion> work) override {
    if (work) queue_.push_back(std::move(work));
  }
  void record(DeviceEvent& event) override {
    static_cast<CpuEvent&>(event).record(this, queue_.empty() ? nullptr : queue_.back());
  }
  void wait(DeviceEvent& event) override {
    const auto& cpu_event = static_cast<const CpuEvent&>(event);
    cpu_event.await_record();
    // Work of a CPU cannot be told to wait for other work, so the issuing thread does.
    if (cpu_event.recorder() != this && cpu_event.work()) cpu_event.work()->wait();
  }
  void synchronize() override {
    std::exception_ptr first;
    for (const std::shared_ptr<Completion>& work : queue_) {
      try {
        work->wait();
      } catch (...) {
        if (!first) first = std::current_exception();
      }
    }
    queue_.clear();
    if (first) std::rethrow_exception(first);
  }

 private:
  std::vector<std::shared_ptr<Completion>> queue_;
};

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(bool spin) : spin_(spin) {}
  std::unique_ptr<DeviceStream> make_stream(const StreamSpec& spec) override {
    if (spec.asynchronous) return std::make_unique<AsyncStream>();
    return std::make_unique<HostStream>();
  }
  std::unique_ptr<DeviceEvent> make_event() override { return std::make_unique<CpuEvent>(spin_); }

 private:
  const bool spin_;
};

}  // namespace

std::unique_ptr<Device> make_cpu_device(bool spin) { return std::make_unique<CpuDevice>(spin); }

}  // namespace dynaflow
