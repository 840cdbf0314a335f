#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dynaflow/partition.h"
#include "dynaflow/replacement.h"

namespace dynaflow {

using RunId = int32_t;  // index in Schedule::runs: the order of issue

inline constexpr int kMaxParts = 1024;  // of a batch

/// How the rows of the batch are cut into parts. Evaluated in every run.
struct CutRule {
  enum class Kind : uint8_t { kEven, kFractions, kSizes };
  Kind kind = Kind::kEven;
  int parts = 1;
  std::vector<double> fractions;  // kFractions: positive, sum 1
  std::vector<int64_t> sizes;     // kSizes: rows of each part
  int64_t min_rows = 1;           // no part may have fewer (the batch symbol's smallest legal value)

  bool operator==(const CutRule&) const = default;
};
/// Rows of each part; they sum to `rows` and none is below rule.min_rows. Larger parts come first in an even
/// cut. Throws PlanError naming the sizes when explicit sizes do not fit or the rows are too few.
std::vector<int64_t> cut(const CutRule& rule, int64_t rows);
/// The most parts, at most rule.parts, that `rows` rows can legally make.
int feasible_parts(const CutRule& rule, int64_t rows);

text::Value cut_to_text(const CutRule& rule);
CutRule cut_from_text(const text::Value& value);

/// Sizes as launches of parts [first, last) see them: the batch symbol replaced by their rows.
SizeExpr on_parts(const Graph& graph, const SizeExpr& expr, int first_part, int last_part, int parts);
/// "p0", "p1"...
std::string part_symbol(int part);

/// One launch: segments on the rows of parts [first_part, last_part).
struct SegmentRun {
  std::vector<SegmentId> segments;  // mostly one; ascending
  int first_part = 0;
  int last_part = 1;
  int stream = 0;            // index in Schedule::streams
  std::vector<RunId> after;  // extra order edges asked for by the strategy
  int replacement = kNoId;   // index in Schedule::replacements; kNoId: the segments' own kernels, in order

  int parts() const { return last_part - first_part; }
  bool operator==(const SegmentRun&) const = default;
};

/// A comparison that the strategy made on the batch: `left op right` had the answer `holds`.
struct Guard {
  enum class Op : uint8_t { kLess, kLessEqual, kEqual };
  Op op = Op::kLess;
  SizeExpr left;
  SizeExpr right;
  bool holds = true;
  bool operator==(const Guard&) const = default;
};
/// Whether the guard's answer is the same under this assignment.
bool holds(const Guard& guard, const std::function<int64_t(std::string_view)>& value_of);
text::Value to_text(const Guard& guard);
Guard guard_from_text(const text::Value& value);

/// What runs when, and on which stream. Immutable once finished.
struct Schedule {
  PartitionPtr partition;
  std::string strategy;  // its name, for messages
  CutRule cut;
  std::vector<std::string> streams;       // streams[0] is where the caller's own work runs
  std::vector<Replacement> replacements;  // of different names
  std::vector<SegmentRun> runs;           // in the order of issue
  std::vector<Guard> guards;              // the bucket: sizes for which the strategy would decide the same
};
using SchedulePtr = std::shared_ptr<const Schedule>;

/// "layers.3.mlp", "mm+relu" for several segments, "fused(mm+relu)" where a kernel replaces them.
std::string launch_name(const Schedule& schedule, const SegmentRun& run);
/// Whether the run is there for each part or some of them: any of its segments is split.
bool is_split(const Schedule& schedule, const SegmentRun& run);
/// "layers.3.mlp[1]", "layers.3.mlp[0:2]" for a merged launch of several parts, "embed" for a whole segment.
std::string run_name(const Schedule& schedule, const SegmentRun& run);
/// What a replacement of these segments on parts [first, last) of `parts` would take and return.
Signature signature_of(const Graph& graph, const SplitAnalysis& split, const Region& region,
                       const SegmentRun& run, int parts);
/// Throws ScheduleError unless every segment runs exactly once for each part, after what it reads and, where
/// it is ordered, after its earlier parts; no order edge points forward, and what is replaced can be.
void check(const Schedule& schedule);
text::Section to_text(const Schedule& schedule);
SchedulePtr schedule_from_text(const text::Section& section, PartitionPtr partition);
std::string print(const Schedule& schedule);

class Scheduler;

/// A size of the batch. Comparisons are recorded as guards, so that the answer holds for the whole bucket.
class RangedSize {
 public:
  RangedSize(SizeExpr expr, int64_t value, std::vector<Guard>* guards)
      : expr_(std::move(expr)), value_(value), guards_(guards) {}
  bool operator<(int64_t other) const;
  bool operator<=(int64_t other) const;
  bool operator>(int64_t other) const { return !(*this <= other); }
  bool operator>=(int64_t other) const { return !(*this < other); }
  bool operator==(int64_t other) const;

 private:
  friend class Scheduler;
  SizeExpr expr_;
  int64_t value_;
  std::vector<Guard>* guards_;
};

/// What a strategy may ask about the batch a plan is made for.
struct Batch {
  RangedSize size;    // rows along the batch symbol
  RangedSize tokens;  // rows of work: batch, or batch * sequence
};

/// A segment that is ready to run for one part (or for all of them, when it cannot be split).
class ReadyOp {
 public:
  ReadyOp(const Segment* segment, SegmentId id, int first_part, int last_part)
      : segment_(segment), id_(id), first_part_(first_part), last_part_(last_part) {}
  const std::string& name() const { return segment_->name; }
  const std::vector<std::string>& tags() const { return segment_->tags; }
  bool has_tag(std::string_view tag) const { return segment_->has_tag(tag); }
  SplitForm form() const { return segment_->form; }
  SegmentId segment() const { return id_; }
  int part() const { return first_part_; }
  int first_part() const { return first_part_; }
  int last_part() const { return last_part_; }

 private:
  const Segment* segment_;
  SegmentId id_;
  int first_part_;
  int last_part_;
};

struct ExecuteOptions {
  std::string stream = "compute";
  std::vector<ReadyOp> after = {};              // executed ops that must end before this one begins
  std::optional<Replacement> replacement = {};  // runs in place of the ops' own kernels
};

/// The programmable API: a strategy calls it to write a schedule. Not thread-safe; lives for one schedule().
class Scheduler {
 public:
  /// `value_of` gives the sizes the plan is made for.
  Scheduler(PartitionPtr partition, std::string strategy, std::function<int64_t(std::string_view)> value_of);

  Batch batch();
  /// Cuts the batch into `parts` even parts; fewer when the rows cannot make so many legal ones. Returns the
  /// number made. Only before the first execute. 1 when the graph has no batch symbol.
  int split(int parts);
  int split(std::vector<double> fractions);
  /// Explicit rows of each part. Throws PlanError when they do not sum to the batch or are below the minimum.
  int split(std::vector<int64_t> sizes);
  int parts() const { return cut_.parts; }

  /// The index of the range of `borders` (ascending) that `size` lies in: 0 below borders[0]. Recorded.
  int bucket(const RangedSize& size, std::span<const int64_t> borders);

  /// Every segment and part whose inputs have been issued and that has not, in program order, part by part.
  /// Of an ordered segment the first such part only.
  std::vector<ReadyOp> get_ready_ops() const;
  /// What would become ready through `ops` once they were executed, in program order: what to launch with
  /// them.
  std::vector<ReadyOp> next_ops(std::span<const ReadyOp> ops) const;
  void execute(const ReadyOp& op, const ExecuteOptions& options = {});
  /// Runs segments on neighbouring parts as one launch: each segment on each part, segment by segment, or
  /// options.replacement in place of all. A segment may read what is executed, or an earlier one of the
  /// launch; none may lie between them. Throws ScheduleError that names what is in the way.
  void execute(std::span<const ReadyOp> ops, const ExecuteOptions& options = {});
  /// What a replacement of these ops takes and returns. Throws as execute() does for ops that make no launch.
  Signature signature(std::span<const ReadyOp> ops) const;
  /// Why no kernel can take the place of these ops: a collective, an effect; empty where one can.
  std::string irreplaceable(std::span<const ReadyOp> ops) const;
  /// The value of a size in the call that the schedule is made for. It is not recorded: for checking kernels,
  /// not for decisions.
  int64_t evaluate(const SizeExpr& size) const;
  /// Throws ScheduleError: the replacement does not fit `ops`, why, and the signature that it must have.
  [[noreturn]] void refuse_replacement(std::span<const ReadyOp> ops, const std::string& replacement,
                                       const std::string& why) const;
  /// Runs what has not been executed yet in program order on one stream. Without a split before: the whole
  /// batch.
  void run_sequentially();

  /// The finished schedule. Throws ScheduleError when something was not executed.
  SchedulePtr finish();

 private:
  bool is_ready(SegmentId segment, int first_part, int last_part) const;
  bool follows_its_parts(SegmentId segment, int first_part) const;
  int step(SegmentId segment) const;
  void start_over();
  void add_if_ready(SegmentId segment, int part);
  int set_cut(CutRule rule);
  ReadyOp op_of(SegmentId segment, int part) const;
  bool issued(SegmentId segment, int part) const {
    return issued_[segment][static_cast<size_t>(part)] != kNoId;
  }
  SegmentRun gather(std::span<const ReadyOp> ops) const;
  void check_parts(const SegmentRun& run, std::span<const ReadyOp> ops) const;
  void check_between(const SegmentRun& run) const;
  void check_inputs(const SegmentRun& run) const;
  void replace(SegmentRun& run, const Replacement& replacement);
  void issue(SegmentRun run, const ExecuteOptions& options);
  const Regions& regions() const;
  Signature signature_of_run(const SegmentRun& run) const;
  [[noreturn]] void refuse(const SegmentRun& run, const std::string& why,
                           const std::string& detail = "") const;
  int stream_index(const std::string& name);
  std::string name_of(const SegmentRun& run) const;
  static SegmentRun run_of(const ReadyOp& op);

  PartitionPtr partition_;
  std::function<int64_t(std::string_view)> value_of_;
  std::shared_ptr<Schedule> schedule_;
  CutRule cut_;
  std::vector<std::vector<SegmentId>> users_;  // by segment: those that read it
  std::vector<std::vector<RunId>> issued_;     // by segment, by part: the run, or kNoId
  std::set<std::pair<SegmentId, int>> ready_;  // segments and first parts, in the order of get_ready_ops()
  mutable std::optional<Regions> regions_;     // once asked for
  bool started_ = false;
};

}  // namespace dynaflow
