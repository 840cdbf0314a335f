#include "dynaflow/schedule.h"

#include <algorithm>
#include <functional>

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

std::string part_symbol(int part) { return formatted("p{}", part); }

SizeExpr on_parts(const Graph& graph, const SizeExpr& expr, int first_part, int last_part, int parts) {
  const bool all = first_part == 0 && last_part == parts;
  if (all || graph.batch_symbol.empty() || !expr.depends_on(graph.batch_symbol)) return expr;
  SizeExpr rows;
  for (int part = first_part; part < last_part; ++part) rows = rows + SizeExpr::symbol(part_symbol(part));
  return expr.substitute(graph.batch_symbol, rows);
}

std::string launch_name(const Schedule& schedule, const SegmentRun& run) {
  std::string name;
  for (SegmentId segment : run.segments)
    name += (name.empty() ? "" : "+") + schedule.partition->segments[segment].name;
  if (run.replacement == kNoId) return name;
  return formatted("{}({})", schedule.replacements[static_cast<size_t>(run.replacement)].name, name);
}

bool is_split(const Schedule& schedule, const SegmentRun& run) {
  return schedule.cut.parts > 1 &&
         std::any_of(run.segments.begin(), run.segments.end(), [&](SegmentId segment) {
           return schedule.partition->segments[segment].form == SplitForm::kSplit;
         });
}

std::string run_name(const Schedule& schedule, const SegmentRun& run) {
  const std::string name = launch_name(schedule, run);
  if (!is_split(schedule, run)) return name;
  if (run.parts() == 1) return formatted("{}[{}]", name, run.first_part);
  return formatted("{}[{}:{}]", name, run.first_part, run.last_part);
}

Signature signature_of(const Graph& graph, const SplitAnalysis& split, const Region& region,
                       const SegmentRun& run, int parts) {
  const auto spec = [&](ValueId id) {
    const Value& value = graph.values[id];
    const bool sharded = split.layouts[id].is_per_part();
    const int first = sharded ? run.first_part : 0;
    const int last = sharded ? run.last_part : parts;
    TensorSpec result{value.name, value.meta->dtype, {}, {}};
    for (const SizeExpr& size : value.meta->shape)
      result.shape.push_back(on_parts(graph, size, first, last, parts));
    for (const SizeExpr& stride : value.meta->strides)
      result.strides.push_back(on_parts(graph, stride, first, last, parts));
    return result;
  };
  Signature signature;
  for (ValueId input : region.inputs) signature.inputs.push_back(spec(input));
  for (ValueId output : region.outputs) signature.outputs.push_back(spec(output));
  return signature;
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
    check_segments(id);
    if (run.first_part < 0 || run.last_part > schedule_.cut.parts || run.first_part >= run.last_part)
      fail(formatted("run {} covers parts [{}, {}) of {}", id, run.first_part, run.last_part,
                     schedule_.cut.parts));
    if (run.stream < 0 || run.stream >= static_cast<int>(schedule_.streams.size()))
      fail(formatted("run {} names no stream", id));
    for (RunId after : run.after)
      if (after < 0 || after >= id)
        fail(formatted("{} runs after a run that is issued later: the order edges form a cycle",
                       run_name(schedule_, run)));
    for (SegmentId segment : run.segments) check_segment(id, segment);
    if (run.replacement != kNoId) check_replacement(run);
  }

  void check_segments(RunId id) const {
    const SegmentRun& run = schedule_.runs[id];
    if (run.segments.empty()) fail(formatted("run {} has no segment", id));
    if (!std::is_sorted(run.segments.begin(), run.segments.end(), std::less_equal<>()))
      fail(formatted("the segments of run {} are not in program order, each once", id));
    if (run.segments.front() < 0 || run.segments.back() >= static_cast<SegmentId>(segments().size()))
      fail(formatted("run {} names no segment of the partition", id));
    if (run.replacement != kNoId &&
        (run.replacement < 0 || run.replacement >= static_cast<int>(schedule_.replacements.size())))
      fail(formatted("run {} names no replacement", id));
  }

  void check_segment(RunId id, SegmentId number) {
    const SegmentRun& run = schedule_.runs[id];
    const Segment& segment = segments()[number];
    const bool whole = segment.form != SplitForm::kSplit;
    if (whole && run.parts() != schedule_.cut.parts)
      fail(formatted("{} cannot be split but is executed for part {} only", segment.name, run.first_part));
    if (segment.ordered && run.first_part > 0 &&
        issued_[number][static_cast<size_t>(run.first_part) - 1] == kNoId)
      fail(
          formatted("{} is executed before {}[{}]: it reads per-batch state of the host, so its parts go in "
                    "their order",
                    run_name(schedule_, run), segment.name, run.first_part - 1));
    for (SegmentId input : segment.inputs)
      for (int part = run.first_part; part < run.last_part; ++part)
        if (issued_[input][static_cast<size_t>(part)] == kNoId)
          fail(formatted("{} is executed before its input {}[{}]", run_name(schedule_, run),
                         segments()[input].name, part));
    for (int part = run.first_part; part < run.last_part; ++part) {
      RunId& slot = issued_[number][static_cast<size_t>(part)];
      if (slot != kNoId) fail(formatted("{}[{}] is executed twice", segment.name, part));
      slot = id;
    }
  }

  void check_replacement(const SegmentRun& run) {
    if (!regions_) regions_.emplace(*schedule_.partition);
    const Region region = regions_->of(run.segments);
    const std::string why = irreplaceable(*schedule_.partition->graph, region);
    if (!why.empty()) fail(formatted("{} cannot be replaced: {}", run_name(schedule_, run), why));
    replacing_op(schedule_.replacements[static_cast<size_t>(run.replacement)], region);
  }

  const Schedule& schedule_;
  std::vector<std::vector<RunId>> issued_;
  std::optional<Regions> regions_;  // once something is replaced
};

}  // namespace

void check(const Schedule& schedule) { ScheduleChecker(schedule).check(); }

}  // namespace dynaflow
