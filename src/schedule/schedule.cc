#include "dynaflow/schedule.h"

#include <algorithm>

namespace dynaflow {

bool holds(const Guard& guard, const std::function<int64_t(std::string_view)>& value_of) {
  const int64_t left = guard.left.evaluate(value_of);
  const int64_t right = guard.right.evaluate(value_of);
  switch (guard.op) {
    case Guard::Op::kLess:
      return (left < right) == guard.holds;
    case Guard::Op::kLessEqual:
      return (left <= right) == guard.holds;
    case Guard::Op::kEqual:
      return (left == right) == guard.holds;
  }
  return false;
}

std::string run_name(const Schedule& schedule, const SegmentRun& run) {
  const Segment& segment = schedule.partition->segments[run.segment];
  if (segment.form != SplitForm::kSplit || schedule.cut.parts == 1) return segment.name;
  if (run.parts() == 1) return formatted("{}[{}]", segment.name, run.first_part);
  return formatted("{}[{}:{}]", segment.name, run.first_part, run.last_part);
}

namespace {

class ScheduleChecker {
 public:
  explicit ScheduleChecker(const Schedule& schedule) : schedule_(schedule) {
    issued_.assign(segments().size(), std::vector<RunId>(static_cast<size_t>(schedule.cut.parts), kNoId));
  }

  void check() {
    for (RunId id = 0; id < static_cast<RunId>(schedule_.runs.size()); ++id) check_run(id);
    for (size_t segment = 0; segment < segments().size(); ++segment)
      for (int part = 0; part < schedule_.cut.parts; ++part)
        if (issued_[segment][static_cast<size_t>(part)] == kNoId)
          fail(formatted("{}[{}] is never executed", segments()[segment].name, part));
  }

 private:
  const std::vector<Segment>& segments() const { return schedule_.partition->segments; }
  [[noreturn]] void fail(const std::string& what) const {
    throw ScheduleError(formatted("{} (strategy '{}')", what, schedule_.strategy));
  }

  void check_run(RunId id) {
    const SegmentRun& run = schedule_.runs[id];
    if (run.segment < 0 || run.segment >= static_cast<SegmentId>(segments().size()))
      fail(formatted("run {} names no segment of the partition", id));
    if (run.first_part < 0 || run.last_part > schedule_.cut.parts || run.first_part >= run.last_part)
      fail(formatted("run {} covers parts [{}, {}) of {}", id, run.first_part, run.last_part,
                     schedule_.cut.parts));
    if (run.stream < 0 || run.stream >= static_cast<int>(schedule_.streams.size()))
      fail(formatted("run {} names no stream", id));
    for (RunId after : run.after)
      if (after < 0 || after >= id)
        fail(formatted("{} runs after a run that is issued later: the order edges form a cycle",
                       run_name(schedule_, run)));
    const Segment& segment = segments()[run.segment];
    if (segment.form != SplitForm::kSplit && run.parts() != schedule_.cut.parts)
      fail(formatted("{} cannot be split but is executed for part {} only", segment.name, run.first_part));
    for (SegmentId input : segment.inputs) check_input(run, input);
    for (int part = run.first_part; part < run.last_part; ++part) {
      RunId& slot = issued_[run.segment][static_cast<size_t>(part)];
      if (slot != kNoId) fail(formatted("{}[{}] is executed twice", segment.name, part));
      slot = id;
    }
  }

  void check_input(const SegmentRun& run, SegmentId input) const {
    const bool whole = segments()[run.segment].form != SplitForm::kSplit;
    const int first = whole ? 0 : run.first_part;
    const int last = whole ? schedule_.cut.parts : run.last_part;
    for (int part = first; part < last; ++part)
      if (issued_[input][static_cast<size_t>(part)] == kNoId)
        fail(formatted("{} is executed before its input {}[{}]", run_name(schedule_, run),
                       segments()[input].name, part));
  }

  const Schedule& schedule_;
  std::vector<std::vector<RunId>> issued_;
};

}  // namespace

void check(const Schedule& schedule) { ScheduleChecker(schedule).check(); }

}  // namespace dynaflow
