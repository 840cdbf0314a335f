#include "plan/issue_order.h"

#include <algorithm>
#include <map>
#include <string>

namespace dynaflow {

namespace {

bool only_collectives(const Partition& partition, const SegmentRun& run) {
  return std::all_of(run.segments.begin(), run.segments.end(), [&](SegmentId segment) {
    const std::vector<OpId>& ops = partition.segments[segment].ops;
    return std::all_of(ops.begin(), ops.end(),
                       [&](OpId id) { return partition.graph->ops[id].kind == OpKind::kCollective; });
  });
}

std::vector<Stream> make_streams(const Schedule& schedule) {
  std::vector<Stream> streams;
  for (const std::string& name : schedule.streams) {
    const StreamKind kind = streams.empty() ? StreamKind::kHost : StreamKind::kAsync;
    streams.push_back({name, kind, {}});
  }
  for (const SegmentRun& run : schedule.runs) {
    Stream& stream = streams[static_cast<size_t>(run.stream)];
    if (stream.kind == StreamKind::kAsync && !only_collectives(*schedule.partition, run))
      stream.kind = StreamKind::kThread;
  }
  return streams;
}

/// What each run of the schedule needs: its inputs' runs on the same rows, the strategy's order edges, the
/// previous collective of the same group, whose order of issue every rank must share, and the previous reader
/// of the host's state, of which there is one for all parts.
std::vector<std::vector<RunId>> dependencies(const Schedule& schedule) {
  const Partition& partition = *schedule.partition;
  std::vector<std::vector<RunId>> needs(schedule.runs.size());
  std::vector<std::vector<RunId>> issued(partition.segments.size(),
                                         std::vector<RunId>(static_cast<size_t>(schedule.cut.parts), kNoId));
  std::map<std::string, RunId> last_of_group;
  RunId last_reader = kNoId;
  for (RunId id = 0; id < static_cast<RunId>(schedule.runs.size()); ++id) {
    const SegmentRun& run = schedule.runs[id];
    std::vector<RunId>& need = needs[id];
    need = run.after;
    for (SegmentId segment : run.segments)
      for (int part = run.first_part; part < run.last_part; ++part)
        issued[segment][static_cast<size_t>(part)] = id;
    for (SegmentId segment : run.segments) {
      for (SegmentId input : partition.segments[segment].inputs)
        for (int part = run.first_part; part < run.last_part; ++part)
          if (const RunId from = issued[input][static_cast<size_t>(part)]; from != id) need.push_back(from);
      if (partition.segments[segment].ordered) {
        if (last_reader != kNoId && last_reader != id) need.push_back(last_reader);
        last_reader = id;
      }
      for (OpId op : partition.segments[segment].ops) {
        const std::string& group = partition.graph->ops[op].group;
        if (group.empty()) continue;
        const auto [entry, added] = last_of_group.try_emplace(group, id);
        if (!added && entry->second != id && schedule.runs[entry->second].stream != run.stream)
          need.push_back(entry->second);
        entry->second = id;
      }
    }
    std::sort(need.begin(), need.end());
    need.erase(std::unique(need.begin(), need.end()), need.end());
  }
  return needs;
}

/// Emits runs in schedule order, except that asynchronous ones go out as soon as they can.
class Hoister {
 public:
  Hoister(const Schedule& schedule, const std::vector<Stream>& streams,
          const std::vector<std::vector<RunId>>& needs)
      : schedule_(schedule), needs_(needs), position_(schedule.runs.size(), kNoId), queues_(streams.size()) {
    for (RunId id = 0; id < static_cast<RunId>(schedule.runs.size()); ++id) {
      const auto stream = static_cast<size_t>(schedule.runs[id].stream);
      if (streams[stream].kind == StreamKind::kAsync) queues_[stream].push_back(id);
    }
    heads_.assign(streams.size(), 0);
  }

  std::vector<RunId> run() {
    for (RunId id = 0; id < static_cast<RunId>(schedule_.runs.size()); ++id) {
      if (position_[id] != kNoId) continue;
      emit(id);
      hoist();
    }
    return std::move(order_);
  }

 private:
  void emit(RunId id) {
    position_[id] = static_cast<RunId>(order_.size());
    order_.push_back(id);
  }

  void hoist() {
    for (bool progress = true; progress;) {
      progress = false;
      for (size_t stream = 0; stream < queues_.size(); ++stream) {
        while (heads_[stream] < queues_[stream].size() && can_go(queues_[stream][heads_[stream]])) {
          const RunId id = queues_[stream][heads_[stream]++];
          if (position_[id] != kNoId) continue;
          emit(id);
          progress = true;
        }
      }
    }
  }

  bool can_go(RunId id) const {
    return position_[id] != kNoId || std::all_of(needs_[id].begin(), needs_[id].end(),
                                                 [&](RunId need) { return position_[need] != kNoId; });
  }

  const Schedule& schedule_;
  const std::vector<std::vector<RunId>>& needs_;
  std::vector<RunId> position_;  // in order_, by run of the schedule
  std::vector<std::vector<RunId>> queues_;
  std::vector<size_t> heads_;
  std::vector<RunId> order_;
};

}  // namespace

Issue issue_order(const Schedule& schedule) {
  Issue issue;
  issue.streams = make_streams(schedule);
  const std::vector<std::vector<RunId>> needs = dependencies(schedule);
  const std::vector<RunId> order = Hoister(schedule, issue.streams, needs).run();
  std::vector<RunId> position(order.size());
  for (size_t i = 0; i < order.size(); ++i) position[order[i]] = static_cast<RunId>(i);
  for (RunId id : order) {
    IssuedRun issued{schedule.runs[id], {}};
    for (RunId need : needs[id]) issued.after.push_back(position[need]);
    std::sort(issued.after.begin(), issued.after.end());
    issue.runs.push_back(std::move(issued));
  }
  return issue;
}

}  // namespace dynaflow
