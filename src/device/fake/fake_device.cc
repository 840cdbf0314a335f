#include <mutex>

#include "dynaflow/device.h"

namespace dynaflow {

namespace {

/// The record that the streams of one device share. Streams of several threads write to it.
class Log {
 public:
  void add(std::string call) {
    const std::lock_guard lock(mutex_);
    calls_.push_back(std::move(call));
  }
  std::vector<std::string> calls() const {
    const std::lock_guard lock(mutex_);
    return calls_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> calls_;
};

class FakeEvent final : public DeviceEvent {
 public:
  explicit FakeEvent(int number) : number_(number) {}
  void reset() override {}
  int number() const { return number_; }

 private:
  int number_;
};

class FakeStream final : public DeviceStream {
 public:
  FakeStream(std::string name, std::shared_ptr<Log> log) : name_(std::move(name)), log_(std::move(log)) {}
  void launched(std::shared_ptr<Completion> work) override {
    log_->add(name_ + ": launched");
    if (work) work->wait();
  }
  void record(DeviceEvent& event) override { add("record", event); }
  void wait(DeviceEvent& event) override { add("wait", event); }
  void synchronize() override { log_->add(name_ + ": synchronize"); }

 private:
  void add(std::string_view call, const DeviceEvent& event) {
    log_->add(formatted("{}: {} e{}", name_, call, static_cast<const FakeEvent&>(event).number()));
  }
  std::string name_;
  std::shared_ptr<Log> log_;
};

class RecordingDevice final : public FakeDevice {
 public:
  std::vector<std::unique_ptr<DeviceStream>> make_streams(std::span<const StreamSpec> specs) override {
    std::vector<std::unique_ptr<DeviceStream>> streams;
    for (const StreamSpec& spec : specs) streams.push_back(std::make_unique<FakeStream>(spec.name, log_));
    return streams;
  }
  std::unique_ptr<DeviceEvent> make_event() override { return std::make_unique<FakeEvent>(events_++); }
  std::vector<std::string> calls() const override { return log_->calls(); }

 private:
  std::shared_ptr<Log> log_ = std::make_shared<Log>();
  int events_ = 0;
};

}  // namespace

std::unique_ptr<FakeDevice> make_fake_device() { return std::make_unique<RecordingDevice>(); }

}  // namespace dynaflow
