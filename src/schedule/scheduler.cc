#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "dynaflow/schedule.h"

namespace dynaflow {

namespace {

constexpr const char* kDefaultStream = "compute";
constexpr size_t kShownRuns = 8;  // in an error: the last runs issued

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
  for (SegmentId input : partition_->segments[segment].inputs)
    for (int part = first_part; part < last_part; ++part)
      if (issued_[input][static_cast<size_t>(part)] == kNoId) return false;
  return true;
}

std::vector<ReadyOp> Scheduler::get_ready_ops() const {
  std::vector<ReadyOp> ready;
  for (const auto& [id, part] : ready_)
    ready.emplace_back(&partition_->segments[id], id, part, part + step(id));
  return ready;
}

std::string Scheduler::op_name(SegmentId segment, int first_part, int last_part) const {
  Schedule names;
  names.partition = partition_;
  names.cut = cut_;
  SegmentRun run;
  run.segment = segment;
  run.first_part = first_part;
  run.last_part = last_part;
  return run_name(names, run);
}

void Scheduler::refuse(SegmentId segment, int first_part, int last_part, const std::string& why) const {
  std::string message =
      formatted("{} {} (strategy '{}', schedule step {})", op_name(segment, first_part, last_part), why,
                schedule_->strategy, schedule_->runs.size());
  std::vector<std::string> issued;
  for (const SegmentRun& run : schedule_->runs)
    issued.push_back(op_name(run.segment, run.first_part, run.last_part));
  const size_t skipped = issued.size() > kShownRuns ? issued.size() - kShownRuns : 0;
  issued.erase(issued.begin(), issued.begin() + static_cast<std::ptrdiff_t>(skipped));
  message += formatted("\n  issued so far: {}{}", skipped > 0 ? "..., " : "",
                       issued.empty() ? "nothing" : formatted("{}", fmt::join(issued, ", ")));
  const std::vector<ReadyOp> ready = get_ready_ops();
  if (!ready.empty())
    message += formatted("\n  {} is ready: execute it first, or take ops from get_ready_ops()",
                         op_name(ready[0].segment(), ready[0].first_part(), ready[0].last_part()));
  throw ScheduleError(message);
}

int Scheduler::stream_index(const std::string& name) {
  std::vector<std::string>& streams = schedule_->streams;
  const auto found = std::find(streams.begin(), streams.end(), name);
  if (found != streams.end()) return static_cast<int>(found - streams.begin());
  streams.push_back(name);
  return static_cast<int>(streams.size()) - 1;
}

void Scheduler::issue(SegmentId segment, int first_part, int last_part, const ExecuteOptions& options) {
  for (int part = first_part; part < last_part; ++part)
    if (issued_[segment][static_cast<size_t>(part)] != kNoId)
      refuse(segment, first_part, last_part, "is executed twice");
  for (SegmentId input : partition_->segments[segment].inputs)
    for (int part = first_part; part < last_part; ++part)
      if (issued_[input][static_cast<size_t>(part)] == kNoId) {
        const bool split = partition_->segments[input].form == SplitForm::kSplit;
        refuse(segment, first_part, last_part,
               formatted("is executed before its input {}",
                         op_name(input, split ? part : 0, split ? part + 1 : cut_.parts)));
      }
  SegmentRun run;
  run.segment = segment;
  run.first_part = first_part;
  run.last_part = last_part;
  run.stream = stream_index(options.stream);
  for (const ReadyOp& op : options.after) {
    const RunId id = issued_[op.segment()][static_cast<size_t>(op.first_part())];
    if (id == kNoId)
      refuse(segment, first_part, last_part,
             formatted("is to run after {}, which is not executed yet: the order would be a cycle",
                       op_name(op.segment(), op.first_part(), op.last_part())));
    run.after.push_back(id);
  }
  const auto id = static_cast<RunId>(schedule_->runs.size());
  for (int part = first_part; part < last_part; ++part) {
    issued_[segment][static_cast<size_t>(part)] = id;
    ready_.erase({segment, part});
  }
  for (SegmentId user : users_[segment])
    for (int part = first_part; part < last_part; part += step(user)) add_if_ready(user, part);
  schedule_->runs.push_back(std::move(run));
  started_ = true;
}

void Scheduler::execute(const ReadyOp& op, const ExecuteOptions& options) {
  issue(op.segment(), op.first_part(), op.last_part(), options);
}

void Scheduler::execute(std::span<const ReadyOp> ops, const ExecuteOptions& options) {
  if (ops.empty()) throw ScheduleError(formatted("execute([]) (strategy '{}')", schedule_->strategy));
  std::vector<ReadyOp> sorted(ops.begin(), ops.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const ReadyOp& a, const ReadyOp& b) { return a.first_part() < b.first_part(); });
  for (size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i].segment() != sorted[0].segment())
      refuse(sorted[i].segment(), sorted[i].first_part(), sorted[i].last_part(),
             formatted("cannot be launched with {}: a merged launch takes parts of one segment",
                       sorted[0].name()));
    if (sorted[i].first_part() != sorted[i - 1].last_part())
      refuse(sorted[i].segment(), sorted[i].first_part(), sorted[i].last_part(),
             formatted("is not the neighbour of part {}: a merged launch takes neighbouring parts, each once",
                       sorted[i - 1].first_part()));
  }
  issue(sorted.front().segment(), sorted.front().first_part(), sorted.back().last_part(), options);
}

void Scheduler::run_sequentially() {
  for (SegmentId id = 0; id < static_cast<SegmentId>(partition_->segments.size()); ++id) {
    for (int part = 0; part < cut_.parts; part += step(id))
      if (issued_[id][static_cast<size_t>(part)] == kNoId) issue(id, part, part + step(id), {});
  }
}

SchedulePtr Scheduler::finish() {
  for (SegmentId id = 0; id < static_cast<SegmentId>(partition_->segments.size()); ++id) {
    const bool split = partition_->segments[id].form == SplitForm::kSplit;
    for (int part = 0; part < cut_.parts; ++part)
      if (issued_[id][static_cast<size_t>(part)] == kNoId)
        refuse(id, split ? part : 0, split ? part + 1 : cut_.parts, "is never executed");
  }
  schedule_->cut = cut_;
  return std::move(schedule_);
}

}  // namespace dynaflow
