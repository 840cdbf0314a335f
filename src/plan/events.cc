#include "plan/events.h"

#include <algorithm>
#include <bit>
#include <map>

namespace dynaflow {

void HappensBefore::order(RunId a, RunId b) {
  uint64_t* to = row(b);
  const uint64_t* from = row(a);
  for (size_t i = 0; i < words_; ++i) to[i] |= from[i];
  to[a / 64] |= uint64_t{1} << (a % 64);
}

RunId HappensBefore::first_unordered(RunId run) const {
  const uint64_t* bits = row(run);
  size_t word = 0;
  while (word < words_ && bits[word] == ~uint64_t{0}) ++word;
  const size_t first = word * 64 + (word < words_ ? static_cast<size_t>(std::countr_one(bits[word])) : 0);
  return std::min(static_cast<RunId>(first), run);
}

OrderTracker::OrderTracker(const std::vector<Stream>& streams, size_t runs)
    : streams_(streams), order_(runs), last_(streams.size(), kNoId) {}

void OrderTracker::begin(RunId run, StreamId stream) {
  const auto at = static_cast<size_t>(stream);
  if (last_[at] != kNoId) order_.order(last_[at], run);
  if (streams_[at].kind != StreamKind::kThread && last_host_ != kNoId) order_.order(last_host_, run);
}

void OrderTracker::end(RunId run, StreamId stream) {
  const auto at = static_cast<size_t>(stream);
  last_[at] = run;
  if (streams_[at].kind == StreamKind::kHost) last_host_ = run;
}

namespace {

struct Block {
  std::vector<EventId> waits;
  EventId record = kNoId;
};

}  // namespace

void place_events(const Issue& issue, Plan& plan) {
  std::vector<Block> blocks(issue.runs.size());
  OrderTracker tracker(plan.streams, issue.runs.size());
  for (RunId run = 0; run < static_cast<RunId>(issue.runs.size()); ++run) {
    const IssuedRun& issued = issue.runs[run];
    tracker.begin(run, issued.run.stream);
    // Later runs first: a wait for one often implies those for the earlier ones.
    for (size_t i = issued.after.size(); i-- > 0;) {
      const RunId need = issued.after[i];
      if (tracker.order().before(need, run)) continue;
      if (blocks[need].record == kNoId) blocks[need].record = plan.events++;
      blocks[run].waits.push_back(blocks[need].record);
      tracker.wait(need, run);
    }
    tracker.end(run, issued.run.stream);
  }
  for (RunId run = 0; run < static_cast<RunId>(issue.runs.size()); ++run) {
    std::vector<Instruction>& code = plan.streams[static_cast<size_t>(issue.runs[run].run.stream)].code;
    for (EventId event : blocks[run].waits) code.push_back({Instruction::Kind::kWait, event});
    code.push_back({Instruction::Kind::kLaunch, run});
    if (blocks[run].record != kNoId) code.push_back({Instruction::Kind::kRecord, blocks[run].record});
  }
}

namespace {

/// Waits before each run, and the run that each event stands for, read back from the plan's code.
struct WaitTable {
  std::vector<std::vector<EventId>> waits;
  std::map<EventId, RunId> recorded;
};

WaitTable read_waits(const Plan& plan) {
  WaitTable table;
  table.waits.resize(plan.runs.size());
  for (const Stream& stream : plan.streams) {
    std::vector<EventId> pending;
    RunId last = kNoId;
    for (const Instruction& instruction : stream.code) {
      if (instruction.kind == Instruction::Kind::kWait) pending.push_back(instruction.id);
      if (instruction.kind == Instruction::Kind::kRecord && last != kNoId)
        table.recorded[instruction.id] = last;
      if (instruction.kind != Instruction::Kind::kLaunch) continue;
      last = instruction.id;
      table.waits[last] = std::move(pending);
      pending.clear();
    }
  }
  return table;
}

}  // namespace

HappensBefore happens_before(const Plan& plan) {
  const WaitTable table = read_waits(plan);
  OrderTracker tracker(plan.streams, plan.runs.size());
  for (RunId run = 0; run < static_cast<RunId>(plan.runs.size()); ++run) {
    tracker.begin(run, plan.runs[run].stream);
    for (EventId event : table.waits[run]) {
      const auto found = table.recorded.find(event);
      if (found != table.recorded.end()) tracker.wait(found->second, run);
    }
    tracker.end(run, plan.runs[run].stream);
  }
  return tracker.order();
}

}  // namespace dynaflow
