#pragma once
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dynaflow/base.h"

namespace dynaflow {

/// Work that a kernel started and that ends on its own.
class Completion {
 public:
  virtual ~Completion() = default;
  virtual bool done() const = 0;
  /// Blocks until the work has ended; throws what made it fail. Safe to call again and from any thread.
  virtual void wait() = 0;
};

/// A point in a stream that other streams can wait for. Recorded at most once between two resets.
class DeviceEvent {
 public:
  virtual ~DeviceEvent() = default;
  /// Forgets the last record. Called between runs only.
  virtual void reset() = 0;
};

/// A queue of work. Called by one thread at a time.
class DeviceStream {
 public:
  virtual ~DeviceStream() = default;
  /// A kernel was started on this stream; null when it has ended already.
  virtual void launched(std::shared_ptr<Completion> completion) = 0;
  /// The event completes when everything queued so far has.
  virtual void record(DeviceEvent& event) = 0;
  /// What is queued later starts after the event, which may still have to be recorded by another thread. May
  /// throw the error of the work that the event stands for; what it does not throw, synchronize does.
  virtual void wait(DeviceEvent& event) = 0;
  /// Blocks until the queue is empty; throws the first error of what was in it.
  virtual void synchronize() = 0;
  /// Called by the stream's own thread, where it has one, before each of its turns.
  virtual void enter_thread() {}
};

struct StreamSpec {
  std::string name;
  bool asynchronous = false;  // kernels on it only start work
  bool own_thread = false;    // a thread of its own runs it, not the issuing one
};

/// Makes streams and events, and says how to spend a wait. Thread-safe.
class Device {
 public:
  virtual ~Device() = default;
  /// The streams of one frame, in the order of the specs. Called by the thread that will issue to them.
  virtual std::vector<std::unique_ptr<DeviceStream>> make_streams(std::span<const StreamSpec> specs) = 0;
  virtual std::unique_ptr<DeviceEvent> make_event() = 0;
};

/// The cores that a stream's own thread may use, by the stream's name. A thread without an entry has those of
/// the issuing one.
using StreamCores = std::map<std::string, std::vector<int>, std::less<>>;

/// The CPU: host streams run in the calling thread, asynchronous ones hold completions. A stream spins for an
/// event when its cores are disjoint from those of every other thread of its frame, else it parks.
std::unique_ptr<Device> make_cpu_device(StreamCores cores = {});

/// Keeps the calls on its streams as text, "compute: launched", "network: wait e3", and never blocks on an
/// event: for tests of stream assignment and event placement. Events are numbered in the order they are made.
class FakeDevice : public Device {
 public:
  virtual std::vector<std::string> calls() const = 0;
};
std::unique_ptr<FakeDevice> make_fake_device();

}  // namespace dynaflow
