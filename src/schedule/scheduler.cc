#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "dynaflow/schedule.h"

namespace dynaflow {

namespace {

constexpr const char* kDefaultStream = "compute";

/// A comparison that was made before says nothing new; neither does one with a negative number.
void record(std::vector<Guard>& guards, Guard guard) {
  if (std::find(guards.begin(), guards.end(), guard) == guards.end()) guards.push_back(std::move(guard));
}

}  // namespace

bool RangedSize::operator<(int64_t other) const {
  const bool answer = value_ < other;
  if (other > 0) record(*guards_, {Guard::Op::kLess, expr_, other, answer});
  return answer;
}
bool RangedSize::operator<=(int64_t other) const {
  const bool answer = value_ <= other;
  if (other >= 0) record(*guards_, {Guard::Op::kLessEqual, expr_, other, answer});
  return answer;
}
bool RangedSize::operator==(int64_t other) const {
  const bool answer = value_ == other;
  if (other >= 0) record(*guards_, {Guard::Op::kEqual, expr_, other, answer});
  return answer;
}

Scheduler::Scheduler(PartitionPtr partition, std::string strategy,
                     std::function<int64_t(std::string_view)> value_of)
    : partition_(std::move(partition)),
      value_of_(std::move(value_of)),
      schedule_(std::make_shared<Schedule>()),
      users_(partition_->segments.size()) {
  for (SegmentId id = 0; id < static_cast<SegmentId>(users_.size()); ++id)
    for (SegmentId input : partition_->segments[id].inputs) users_[input].push_back(id);
  start_over();
  schedule_->partition = partition_;
  schedule_->strategy = std::move(strategy);
  schedule_->streams = {kDefaultStream};
}

Batch Scheduler::batch() {
  const Graph& graph = *partition_->graph;
  const SizeExpr rows = graph.batch_symbol.empty() ? SizeExpr(1) : SizeExpr::symbol(graph.batch_symbol);
  const auto sized = [&](const SizeExpr& expr) {
    return RangedSize(expr, expr.evaluate(value_of_), &schedule_->guards);
  };
  return {sized(rows), sized(graph.tokens)};
}

int Scheduler::split(int parts) {
  if (parts < 1) throw ScheduleError(formatted("split({}): a batch has at least one part", parts));
  CutRule rule;
  rule.parts = parts;
  return set_cut(std::move(rule));
}

int Scheduler::split(std::vector<double> fractions) {
  const double sum = std::accumulate(fractions.begin(), fractions.end(), 0.0);
  const bool positive = std::all_of(fractions.begin(), fractions.end(), [](double f) { return f > 0; });
  if (fractions.empty() || !positive || sum < 0.999 || sum > 1.001)
    throw ScheduleError(
        formatted("split([{}]): fractions are positive and sum to 1", fmt::join(fractions, ", ")));
  CutRule rule;
  rule.kind = CutRule::Kind::kFractions;
  rule.parts = static_cast<int>(fractions.size());
  rule.fractions = std::move(fractions);
  return set_cut(std::move(rule));
}

int Scheduler::split(std::vector<int64_t> sizes) {
  if (sizes.empty()) throw ScheduleError("split([]): a batch has at least one part");
  CutRule rule;
  rule.kind = CutRule::Kind::kSizes;
  rule.parts = static_cast<int>(sizes.size());
  rule.sizes = std::move(sizes);
  return set_cut(std::move(rule));
}

int Scheduler::set_cut(CutRule rule) {
  if (started_) throw ScheduleError("split() comes before the first execute()");
  if (rule.parts > kMaxParts)
    throw ScheduleError(formatted("split() into {} parts; at most {} are possible", rule.parts, kMaxParts));
  const Graph& graph = *partition_->graph;
  const Symbol* symbol = graph.find_symbol(graph.batch_symbol);
  if (symbol == nullptr) return parts();
  rule.min_rows = std::max<int64_t>(symbol->min, 1);
  const SizeExpr rows = SizeExpr::symbol(symbol->name);
  const int64_t value = value_of_(symbol->name);
  if (rule.kind == CutRule::Kind::kSizes) {
    cut(rule, value);
    record(schedule_->guards, {Guard::Op::kEqual, rows, value, true});
  } else {
    const int feasible = feasible_parts(rule, value);
    if (feasible > 1) record(schedule_->guards, {Guard::Op::kLess, rows, feasible * rule.min_rows, false});
    int64_t next = 0;  // where one more part is possible; no batch is that large when it overflows
    if (feasible < rule.parts && !__builtin_mul_overflow(int64_t{feasible} + 1, rule.min_rows, &next))
      record(schedule_->guards, {Guard::Op::kLess, rows, next, true});
    rule.parts = feasible;
    if (!rule.fractions.empty()) rule.fractions.resize(static_cast<size_t>(feasible));
  }
  cut_ = std::move(rule);
  start_over();
  return cut_.parts;
}

void Scheduler::start_over() {
  issued_.assign(users_.size(), std::vector<RunId>(static_cast<size_t>(cut_.parts), kNoId));
  ready_.clear();
  for (SegmentId id = 0; id < static_cast<SegmentId>(users_.size()); ++id)
    for (int part = 0; part < cut_.parts; part += step(id)) add_if_ready(id, part);
}

int Scheduler::step(SegmentId segment) const {
  return partition_->segments[segment].form == SplitForm::kSplit ? 1 : cut_.parts;
}

void Scheduler::add_if_ready(SegmentId segment, int part) {
  const int first = part - part % step(segment);
  if (issued_[segment][static_cast<size_t>(first)] == kNoId &&
      is_ready(segment, first, first + step(segment)))
    ready_.emplace(segment, first);
}

int Scheduler::bucket(const RangedSize& size, std::span<const int64_t> borders) {
  int index = 0;
  for (int64_t border : borders) {
    if (size < border) break;
    ++index;
  }
  return index;
}

bool Scheduler::is_ready(SegmentId segment, int first_part, int last_part) const {
  if (!follows_its_parts(segment, first_part)) return false;
  for (SegmentId input : partition_->segments[segment].inputs)
    for (int part = first_part; part < last_part; ++part)
      if (issued_[input][static_cast<size_t>(part)] == kNoId) return false;
  return true;
}

/// Whether no part of the segment that has to come before `first_part` is missing.
bool Scheduler::follows_its_parts(SegmentId segment, int first_part) const {
  return first_part == 0 || !partition_->segments[segment].ordered || issued(segment, first_part - 1);
}

ReadyOp Scheduler::op_of(SegmentId segment, int part) const {
  const int first = part - part % step(segment);
  return {&partition_->segments[segment], segment, first, first + step(segment)};
}

std::vector<ReadyOp> Scheduler::get_ready_ops() const {
  std::vector<ReadyOp> ready;
  for (const auto& [id, part] : ready_) ready.push_back(op_of(id, part));
  return ready;
}

std::vector<ReadyOp> Scheduler::next_ops(std::span<const ReadyOp> ops) const {
  const auto done = [&](SegmentId segment, int part) {
    return issued(segment, part) || std::any_of(ops.begin(), ops.end(), [&](const ReadyOp& op) {
             return op.segment() == segment && op.first_part() <= part && part < op.last_part();
           });
  };
  const auto complete = [&](const ReadyOp& op) {
    const bool ordered = partition_->segments[op.segment()].ordered;
    if (ordered && op.first_part() > 0 && !done(op.segment(), op.first_part() - 1)) return false;
    for (SegmentId input : partition_->segments[op.segment()].inputs)
      for (int part = op.first_part(); part < op.last_part(); ++part)
        if (!done(input, part)) return false;
    return true;
  };
  std::set<std::pair<SegmentId, int>> found;
  const auto add = [&](SegmentId segment, int part) {
    if (!done(segment, part) && complete(op_of(segment, part)))
      found.emplace(segment, op_of(segment, part).first_part());
  };
  for (const ReadyOp& op : ops) {
    if (partition_->segments[op.segment()].ordered && op.last_part() < cut_.parts)
      add(op.segment(), op.last_part());
    for (SegmentId user : users_[op.segment()])
      for (int part = op.first_part(); part < op.last_part(); ++part) add(user, part);
  }
  std::vector<ReadyOp> next;
  for (const auto& [id, part] : found) next.push_back(op_of(id, part));
  return next;
}

SchedulePtr Scheduler::finish() {
  for (SegmentId id = 0; id < static_cast<SegmentId>(partition_->segments.size()); ++id)
    for (int part = 0; part < cut_.parts; ++part)
      if (!issued(id, part)) refuse(run_of(op_of(id, part)), "is never executed");
  schedule_->cut = cut_;
  return std::move(schedule_);
}

}  // namespace dynaflow
