#include "dynaflow/device.h"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "device/cpu/cores.h"

using namespace dynaflow;  // NOLINT(google-build-using-namespace)

namespace {

/// Work that ends when the test says so.
class Manual final : public Completion {
 public:
  bool done() const override { return done_.load(); }
  void wait() override {
    done_.wait(false);
    if (!error_.empty()) throw std::runtime_error(error_);
  }
  void finish(std::string error = "") {
    error_ = std::move(error);
    done_.store(true);
    done_.notify_all();
  }

 private:
  std::atomic<bool> done_{false};
  std::string error_;
};

/// Calls `body` on another thread and says whether it has returned.
class Background {
 public:
  template <typename Body>
  explicit Background(Body body)
      : thread_([this, body] {
          body();
          returned_.store(true);
        }) {}
  ~Background() { thread_.join(); }
  bool returned_soon() const {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return returned_.load();
  }
  bool returned_eventually() const {
    for (int i = 0; i < 2000 && !returned_.load(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return returned_.load();
  }

 private:
  std::atomic<bool> returned_{false};
  std::thread thread_;
};

std::unique_ptr<DeviceStream> make_stream(Device& device, const StreamSpec& spec) {
  return std::move(device.make_streams({&spec, 1}).front());
}

}  // namespace

TEST_CASE("a wait that comes before the record blocks until the record, parked or spinning") {
  const int other = thread_cores().back() + 1;
  for (const StreamCores& cores : {StreamCores{}, StreamCores{{"side", {other}}}}) {
    const auto device = make_cpu_device(cores);
    const auto streams = device->make_streams(std::vector<StreamSpec>{{"compute"}, {"side", false, true}});
    const auto& recorder = streams[0];
    const auto& waiter = streams[1];
    const auto event = device->make_event();
    for (int round = 0; round < 2; ++round) {  // the second round must not see the record of the first
      {
        const Background wait([&] { waiter->wait(*event); });
        CHECK_FALSE(wait.returned_soon());
        recorder->record(*event);
        CHECK(wait.returned_eventually());
      }
      event->reset();
    }
  }
}

TEST_CASE("an event of an asynchronous stream completes when the work queued before it has") {
  const auto device = make_cpu_device();
  const auto network = make_stream(*device, {"network", true});
  const auto compute = make_stream(*device, {"compute", false});
  const auto event = device->make_event();
  const auto first = std::make_shared<Manual>();
  const auto second = std::make_shared<Manual>();
  network->launched(first);
  network->record(*event);
  network->launched(second);
  const Background wait([&] { compute->wait(*event); });
  CHECK_FALSE(wait.returned_soon());
  first->finish();
  CHECK(wait.returned_eventually());
  second->finish();
  network->synchronize();
}

TEST_CASE("an asynchronous stream waits for another stream's work on the issuing thread, never for its own") {
  const auto device = make_cpu_device();
  const auto network = make_stream(*device, {"network", true});
  const auto other = make_stream(*device, {"other", true});
  const auto event = device->make_event();
  const auto work = std::make_shared<Manual>();
  network->launched(work);
  network->record(*event);
  network->wait(*event);  // first in, first out: returns at once
  const Background wait([&] { other->wait(*event); });
  CHECK_FALSE(wait.returned_soon());
  work->finish();
  CHECK(wait.returned_eventually());
}

TEST_CASE("a host stream ends what a kernel left running before it goes on, and passes its error on") {
  const auto device = make_cpu_device();
  const auto compute = make_stream(*device, {"compute", false});
  const auto work = std::make_shared<Manual>();
  work->finish("out of memory");
  CHECK_THROWS_WITH(compute->launched(work), "out of memory");
  compute->launched(nullptr);
  compute->synchronize();
}

TEST_CASE("synchronize waits for all work, throws the first error and leaves an empty queue") {
  const auto device = make_cpu_device();
  const auto network = make_stream(*device, {"network", true});
  const std::vector<std::string> errors = {"", "lost a peer", "group is broken"};
  std::vector<std::shared_ptr<Manual>> work;
  for (const std::string& error : errors) {
    work.push_back(std::make_shared<Manual>());
    work.back()->finish(error);
    network->launched(work.back());
  }
  CHECK_THROWS_WITH(network->synchronize(), "lost a peer");
  network->synchronize();
}

TEST_CASE("a wait throws the error of the work that its event stands for") {
  const auto device = make_cpu_device();
  const auto network = make_stream(*device, {"network", true});
  const auto compute = make_stream(*device, {"compute", false});
  const auto event = device->make_event();
  const auto work = std::make_shared<Manual>();
  network->launched(work);
  network->record(*event);
  work->finish("lost a peer");
  CHECK_THROWS_WITH(compute->wait(*event), "lost a peer");
  event->reset();
}

TEST_CASE("threads spin for each other only when they share no core") {
  CHECK(have_own_cores({{0}, {1}}) == std::vector<bool>{true, true});
  CHECK(have_own_cores({{0, 1}, {1}}) == std::vector<bool>{false, false});
  CHECK(have_own_cores({{0}, {0}, {1, 2}}) == std::vector<bool>{false, false, true});
  CHECK(have_own_cores({{}, {1}}) == std::vector<bool>{false, true});
}

TEST_CASE("a stream's own thread runs on the stated cores, and says so when it cannot") {
  const int core = thread_cores().back();
  std::vector<int> found;
  std::thread([&] {
    make_stream(*make_cpu_device({{"side", {core}}}), {"side", false, true})->enter_thread();
    found = thread_cores();
  }).join();
  CHECK(found == std::vector<int>{core});
  const auto nowhere = make_stream(*make_cpu_device({{"side", {1000}}}), {"side", false, true});
  CHECK_THROWS_AS(nowhere->enter_thread(), ExecutionError);
  CHECK_THROWS_AS(nowhere->enter_thread(), ExecutionError);  // not forgotten
}

TEST_CASE("the fake device writes down what each stream was told") {
  const auto device = make_fake_device();
  const auto compute = make_stream(*device, {"compute", false});
  const auto network = make_stream(*device, {"network", true});
  const auto first = device->make_event();
  const auto second = device->make_event();
  compute->launched(nullptr);
  compute->record(*first);
  network->wait(*second);
  network->synchronize();
  const std::vector<std::string> expected = {"compute: launched", "compute: record e0", "network: wait e1",
                                             "network: synchronize"};
  CHECK(device->calls() == expected);
}
