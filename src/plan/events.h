#pragma once
#include "plan/issue_order.h"

namespace dynaflow {

/// Fills `plan.streams` with launches, and with a record and a wait wherever a run needs another that its
/// stream's order, the host's order and earlier waits do not already guarantee.
void place_events(const Issue& issue, Plan& plan);

/// Tracks the happens-before relation as runs are issued one by one.
class OrderTracker {
 public:
  OrderTracker(const std::vector<Stream>& streams, size_t runs);
  /// Begins run `run` on `stream`: it follows its stream's last run and, if the host issues it, all that the
  /// host knows to be finished.
  void begin(RunId run, StreamId stream);
  /// `run` also follows `other`, through a wait.
  void wait(RunId other, RunId run) { order_.order(other, run); }
  /// Run `run` was issued.
  void end(RunId run, StreamId stream);
  const HappensBefore& order() const { return order_; }

 private:
  const std::vector<Stream>& streams_;
  HappensBefore order_;
  std::vector<RunId> last_;  // by stream
  RunId last_host_ = kNoId;  // the last run that the host itself finished: it knows all before it
};

}  // namespace dynaflow
