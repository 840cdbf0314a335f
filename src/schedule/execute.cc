#include <fmt/ranges.h>

#include <algorithm>

#include "dynaflow/schedule.h"

// How a strategy's ops become one launch, and what is refused.

namespace dynaflow {

namespace {

constexpr size_t kShownRuns = 8;  // in an error: the last runs issued

}  // namespace

SegmentRun Scheduler::run_of(const ReadyOp& op) {
  SegmentRun run;
  run.segments = {op.segment()};
  run.first_part = op.first_part();
  run.last_part = op.last_part();
  return run;
}

std::string Scheduler::name_of(const SegmentRun& run) const {
  Schedule names;
  names.partition = partition_;
  names.cut = cut_;
  SegmentRun shown = run;
  shown.replacement = kNoId;
  return run_name(names, shown);
}

void Scheduler::refuse(const SegmentRun& run, const std::string& why, const std::string& detail) const {
  std::string message = formatted("{} {} (strategy '{}', schedule step {}){}", name_of(run), why,
                                  schedule_->strategy, schedule_->runs.size(), detail);
  std::vector<std::string> issued;
  for (const SegmentRun& earlier : schedule_->runs) issued.push_back(name_of(earlier));
  const size_t skipped = issued.size() > kShownRuns ? issued.size() - kShownRuns : 0;
  issued.erase(issued.begin(), issued.begin() + static_cast<std::ptrdiff_t>(skipped));
  message += formatted("\n  issued so far: {}{}", skipped > 0 ? "..., " : "",
                       issued.empty() ? "nothing" : formatted("{}", fmt::join(issued, ", ")));
  const std::vector<ReadyOp> ready = get_ready_ops();
  if (!ready.empty())
    message += formatted("\n  {} is ready: execute it first, or take ops from get_ready_ops()",
                         name_of(run_of(ready[0])));
  throw ScheduleError(message);
}

/// Every segment has the parts of the first one, side by side and each once.
void Scheduler::check_parts(const SegmentRun& run, std::span<const ReadyOp> ops) const {
  for (size_t i = 1; i < ops.size(); ++i) {
    const bool same = ops[i].segment() == ops[i - 1].segment();
    if (same && ops[i].first_part() != ops[i - 1].last_part())
      refuse(run_of(ops[i]),
             formatted("is not the neighbour of part {}: a merged launch takes neighbouring parts, each once",
                       ops[i - 1].first_part()));
  }
  for (size_t begin = 0, end = 0; begin < ops.size(); begin = end) {
    while (end < ops.size() && ops[end].segment() == ops[begin].segment()) ++end;
    const int first = ops[begin].first_part();
    const int last = ops[end - 1].last_part();
    if (ops[begin].form() != SplitForm::kSplit && last - first < cut_.parts)
      refuse(run_of(ops[begin]),
             formatted("is not split: it cannot run on parts [{}, {}) only", first, last));
    if (first == run.first_part && last == run.last_part) continue;
    refuse(run_of(ops[begin]),
           formatted("cannot be launched with {}: it is given on parts [{}, {}), and {} on parts [{}, {}); a "
                     "launch has each of its segments on the same parts{}",
                     ops[0].name(), first, last, ops[0].name(), run.first_part, run.last_part,
                     ops[begin].form() == ops[0].form() ? "" : ", and what is not split is on all"));
  }
}

/// No segment outside may lie between those of the launch: it would have to run in the middle of it.
void Scheduler::check_between(const SegmentRun& run) const {
  const auto inside = [&](SegmentId id) {
    return std::binary_search(run.segments.begin(), run.segments.end(), id);
  };
  // By segment from the first on: the member that it comes after, or kNoId.
  const SegmentId first = run.segments.front();
  std::vector<SegmentId> after(static_cast<size_t>(run.segments.back() - first) + 1, kNoId);
  for (SegmentId id = first; id <= run.segments.back(); ++id) {
    for (SegmentId input : partition_->segments[id].inputs) {
      if (input < first) continue;
      const SegmentId member = inside(input) ? input : after[static_cast<size_t>(input - first)];
      if (inside(id) && !inside(input) && member != kNoId) {
        SegmentRun last = run;
        last.segments = {id};
        const auto& segments = partition_->segments;
        refuse(last, formatted("cannot be launched with {}: {} lies between them; launch neighbours, or all "
                               "of them",
                               segments[member].name, segments[input].name));
      }
      if (member != kNoId) after[static_cast<size_t>(id - first)] = member;
    }
  }
}

SegmentRun Scheduler::gather(std::span<const ReadyOp> ops) const {
  if (ops.empty()) throw ScheduleError(formatted("execute([]) (strategy '{}')", schedule_->strategy));
  std::vector<ReadyOp> sorted(ops.begin(), ops.end());
  std::sort(sorted.begin(), sorted.end(), [](const ReadyOp& a, const ReadyOp& b) {
    return std::pair(a.segment(), a.first_part()) < std::pair(b.segment(), b.first_part());
  });
  SegmentRun run = run_of(sorted[0]);
  for (const ReadyOp& op : sorted) {
    if (op.segment() == run.segments[0]) run.last_part = op.last_part();
    if (op.segment() != run.segments.back()) run.segments.push_back(op.segment());
  }
  check_parts(run, sorted);
  check_between(run);
  return run;
}

void Scheduler::check_inputs(const SegmentRun& run) const {
  for (size_t i = 0; i < run.segments.size(); ++i) {
    const auto earlier = std::span(run.segments).first(i);
    if (!follows_its_parts(run.segments[i], run.first_part))
      refuse(run, formatted("is executed before {}: it reads per-batch state of the host, so its parts go in "
                            "their order",
                            name_of(run_of(op_of(run.segments[i], run.first_part - 1)))));
    for (SegmentId input : partition_->segments[run.segments[i]].inputs) {
      if (std::binary_search(earlier.begin(), earlier.end(), input)) continue;
      for (int part = run.first_part; part < run.last_part; ++part)
        if (!issued(input, part))
          refuse(run, formatted("is executed before its input {}", name_of(run_of(op_of(input, part)))));
    }
  }
}

const Regions& Scheduler::regions() const {
  if (!regions_) regions_.emplace(*partition_);
  return *regions_;
}

Signature Scheduler::signature_of_run(const SegmentRun& run) const {
  return signature_of(*partition_->graph, partition_->split, regions().of(run.segments), run, cut_.parts);
}

Signature Scheduler::signature(std::span<const ReadyOp> ops) const { return signature_of_run(gather(ops)); }

int64_t Scheduler::evaluate(const SizeExpr& size) const {
  std::vector<int64_t> rows;
  return size.evaluate([&](std::string_view name) -> int64_t {
    for (int part = 0; part < cut_.parts && cut_.parts > 1; ++part) {
      if (part_symbol(part) != name) continue;
      if (rows.empty()) rows = cut(cut_, value_of_(partition_->graph->batch_symbol));
      return rows[static_cast<size_t>(part)];
    }
    return value_of_(name);
  });
}

std::string Scheduler::irreplaceable(std::span<const ReadyOp> ops) const {
  return dynaflow::irreplaceable(*partition_->graph, regions().of(gather(ops).segments));
}

void Scheduler::refuse_replacement(std::span<const ReadyOp> ops, const std::string& replacement,
                                   const std::string& why) const {
  const SegmentRun run = gather(ops);
  refuse(run, formatted("cannot be replaced by '{}': {}", replacement, why),
         formatted("\n  expected: {}{}", replacement, print(signature_of_run(run))));
}

void Scheduler::replace(SegmentRun& run, const Replacement& replacement) {
  const Region region = regions().of(run.segments);
  const std::string why = dynaflow::irreplaceable(*partition_->graph, region);
  if (!why.empty()) refuse(run, formatted("cannot be replaced by '{}': {}", replacement.name, why));
  try {
    replacing_op(replacement, region);
  } catch (const ScheduleError&) {
    const std::string signature = print(signature_of_run(run));
    refuse(run,
           formatted("cannot be replaced by '{}': it takes an input that is not there", replacement.name),
           formatted("\n  expected: {}{}", replacement.name, signature));
  }
  std::vector<Replacement>& known = schedule_->replacements;
  Replacement named = replacement;
  int copies = 1;
  for (auto found = known.begin(); found != known.end();) {
    if (*found == named) {
      run.replacement = static_cast<int>(found - known.begin());
      return;
    }
    const bool taken = found->name == named.name;
    if (taken) named.name = formatted("{}#{}", replacement.name, ++copies);
    found = taken ? known.begin() : found + 1;
  }
  run.replacement = static_cast<int>(known.size());
  known.push_back(std::move(named));
}

int Scheduler::stream_index(const std::string& name) {
  std::vector<std::string>& streams = schedule_->streams;
  const auto found = std::find(streams.begin(), streams.end(), name);
  if (found != streams.end()) return static_cast<int>(found - streams.begin());
  streams.push_back(name);
  return static_cast<int>(streams.size()) - 1;
}

void Scheduler::issue(SegmentRun run, const ExecuteOptions& options) {
  for (SegmentId segment : run.segments)
    for (int part = run.first_part; part < run.last_part; ++part)
      if (issued(segment, part)) {
        SegmentRun twice = run;
        twice.segments = {segment};
        refuse(twice, "is executed twice");
      }
  check_inputs(run);
  for (const ReadyOp& op : options.after) {
    const RunId id = issued_[op.segment()][static_cast<size_t>(op.first_part())];
    if (id == kNoId)
      refuse(run, formatted("is to run after {}, which is not executed yet: the order would be a cycle",
                            name_of(run_of(op))));
    run.after.push_back(id);
  }
  if (options.replacement) replace(run, *options.replacement);
  run.stream = stream_index(options.stream);
  const auto id = static_cast<RunId>(schedule_->runs.size());
  for (SegmentId segment : run.segments)
    for (int part = run.first_part; part < run.last_part; ++part) {
      issued_[segment][static_cast<size_t>(part)] = id;
      ready_.erase({segment, part});
    }
  for (SegmentId segment : run.segments) {
    if (partition_->segments[segment].ordered && run.last_part < cut_.parts)
      add_if_ready(segment, run.last_part);
    for (SegmentId user : users_[segment])
      for (int part = run.first_part; part < run.last_part; part += step(user)) add_if_ready(user, part);
  }
  schedule_->runs.push_back(std::move(run));
  started_ = true;
}

void Scheduler::execute(const ReadyOp& op, const ExecuteOptions& options) { issue(run_of(op), options); }

void Scheduler::execute(std::span<const ReadyOp> ops, const ExecuteOptions& options) {
  issue(gather(ops), options);
}

void Scheduler::run_sequentially() {
  for (SegmentId id = 0; id < static_cast<SegmentId>(partition_->segments.size()); ++id)
    for (int part = 0; part < cut_.parts; part += step(id))
      if (!issued(id, part)) issue(run_of(op_of(id, part)), {});
}

}  // namespace dynaflow
