#include <atomic>
#include <exception>

#include "device/cpu/cores.h"
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
  void await_record(bool spin) const {
    if (spin)
      for (int i = 0; i < kSpins && recorded_.load(std::memory_order_acquire) == 0; ++i) relax();
    recorded_.wait(0, std::memory_order_acquire);
  }
  /// Only after await_record.
  const DeviceStream* recorder() const { return recorder_; }
  const std::shared_ptr<Completion>& work() const { return work_; }

 private:
  static constexpr int kSpins = 2000;  // some 50 us: more than a handoff takes, less than a time slice

  std::atomic<int32_t> recorded_{0};
  const DeviceStream* recorder_ = nullptr;
  std::shared_ptr<Completion> work_;  // null: nothing was left running
};

/// The thread that issues runs everything itself, and ends it before it goes on.
class HostStream final : public DeviceStream {
 public:
  /// `cores`: those to bind the stream's own thread to; empty leaves it where it is.
  HostStream(std::vector<int> cores, bool spin)
      : cores_(std::move(cores)), spin_(spin), bound_(cores_.empty()) {}

  void launched(std::shared_ptr<Completion> work) override {
    if (work) work->wait();
  }
  void record(DeviceEvent& event) override { static_cast<CpuEvent&>(event).record(this, nullptr); }
  void wait(DeviceEvent& event) override {
    const auto& cpu_event = static_cast<const CpuEvent&>(event);
    cpu_event.await_record(spin_);
    if (cpu_event.work()) cpu_event.work()->wait();
  }
  void synchronize() override {}
  void enter_thread() override {
    if (bound_) return;
    bind_thread(cores_);
    bound_ = true;
  }

 private:
  const std::vector<int> cores_;
  const bool spin_;
  bool bound_;  // to cores_
};

/// Work that runs on its own, first in first out: the kernels see to the order, this keeps what is not over.
class AsyncStream final : public DeviceStream {
 public:
  explicit AsyncStream(bool spin) : spin_(spin) {}

  void launched(std::shared_ptr<Completion> work) override {
    if (work) queue_.push_back(std::move(work));
  }
  void record(DeviceEvent& event) override {
    static_cast<CpuEvent&>(event).record(this, queue_.empty() ? nullptr : queue_.back());
  }
  void wait(DeviceEvent& event) override {
    const auto& cpu_event = static_cast<const CpuEvent&>(event);
    cpu_event.await_record(spin_);
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
  const bool spin_;
};

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(StreamCores cores) : cores_(std::move(cores)) {}

  std::vector<std::unique_ptr<DeviceStream>> make_streams(std::span<const StreamSpec> specs) override {
    // The issuing thread comes first; threads that nothing was said about share its cores.
    std::vector<std::vector<int>> threads{thread_cores()};
    std::vector<size_t> thread_of;
    for (const StreamSpec& spec : specs) {
      thread_of.push_back(spec.own_thread ? threads.size() : 0);
      if (spec.own_thread) threads.push_back(stated(spec).empty() ? threads[0] : stated(spec));
    }
    const std::vector<bool> apart = have_own_cores(threads);
    std::vector<std::unique_ptr<DeviceStream>> streams;
    for (size_t i = 0; i < specs.size(); ++i) {
      const bool spin = threads.size() > 1 && apart[thread_of[i]];
      if (specs[i].asynchronous)
        streams.push_back(std::make_unique<AsyncStream>(spin));
      else
        streams.push_back(std::make_unique<HostStream>(stated(specs[i]), spin));
    }
    return streams;
  }
  std::unique_ptr<DeviceEvent> make_event() override { return std::make_unique<CpuEvent>(); }

 private:
  std::vector<int> stated(const StreamSpec& spec) const {
    const auto found = cores_.find(spec.name);
    return spec.own_thread && found != cores_.end() ? found->second : std::vector<int>{};
  }
  const StreamCores cores_;
};

}  // namespace

std::unique_ptr<Device> make_cpu_device(StreamCores cores) {
  return std::make_unique<CpuDevice>(std::move(cores));
}

}  // namespace dynaflow
