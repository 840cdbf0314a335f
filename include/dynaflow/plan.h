#pragma once
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "dynaflow/schedule.h"

namespace dynaflow {

using SlotId = int32_t;
using BufferId = int32_t;
using EventId = int32_t;
using StreamId = int32_t;
using PartRange = std::pair<int, int>;  // parts [first, second)

/// How a device runs a stream's work.
enum class StreamKind : uint8_t {
  kHost,    // the issuing thread runs it, in issue order; done when the call returns
  kAsync,   // the issuing thread starts it; it runs on its own, first in first out (collectives)
  kThread,  // a thread of its own runs it
};

/// One step of one stream. Plain data: the executor, the simulator and the verifier all read exactly this.
struct Instruction {
  enum class Kind : uint8_t { kLaunch, kRecord, kWait, kFree };
  Kind kind = Kind::kLaunch;
  int32_t id =
      kNoId;  // kLaunch: RunId; kRecord, kWait: EventId; kFree: SlotId whose kernel-made tensor may go
  bool operator==(const Instruction&) const = default;
};

struct Stream {
  std::string name;
  StreamKind kind = StreamKind::kHost;
  std::vector<Instruction> code;  // in issue order
  bool operator==(const Stream&) const = default;
};

/// Bytes in the device's arena. Its offset is the largest end of the buffers in `above` (0 when there is
/// none), rounded up to kAlignment; so the packing is legal for every size, and tight for the sizes it was
/// made for.
struct Buffer {
  SizeExpr bytes;
  std::vector<BufferId> above;
  bool operator==(const Buffer&) const = default;
};
inline constexpr int64_t kAlignment = 64;

/// Who owns the bytes under a slot.
enum class Root : uint8_t {
  kArena,     // Plan::buffers[index]
  kArgument,  // the caller's argument `index` (input or parameter)
  kConstant,  // the capture's constant `index`
  kOutput,    // Plan::outputs_storage[index], allocated for the caller in every run
  kKernel,    // made by a kernel that has no out= form: the slot `index` that it filled (its own id when it
              // is that slot); lives until kFree
};

/// One tensor as one run sees it: a value on a range of parts. Sizes are expressions over the graph's symbols
/// and the part sizes p0, p1, ...; the batch symbol itself is the sum of the parts.
struct Slot {
  ValueId value = kNoId;
  int first_part = 0;
  int last_part = 1;
  Root root = Root::kArena;
  int32_t index = kNoId;
  SharedMeta meta;  // of those parts; the offset from the root's first element
  bool operator==(const Slot&) const = default;
};

/// Bytes allocated for the caller in every run: one graph output, or several that share storage.
struct OutputStorage {
  DType dtype = DType::kFloat32;
  SizeExpr elements;
  bool operator==(const OutputStorage&) const = default;
};

/// How a launch delivers an output.
enum class Delivery : uint8_t {
  kOut,        // written in place through op.out_target
  kOverInput,  // as kOut, into the bytes of an input that lies as the output does; element-wise ops only
  kInPlace,  // the outputs are the inputs' own bytes: a collective that reduces in place, an op that mutates
  kFresh,    // the kernel allocates; the slot's root is kKernel
  kCopy,     // the kernel allocates, then the result is copied into the slot (counted)
};
/// Whether the kernel is given the slots to write.
inline bool is_told(Delivery delivery) {
  return delivery == Delivery::kOut || delivery == Delivery::kOverInput;
}

/// One kernel call of a run.
struct OpLaunch {
  OpId op = kNoId;              // as in Plan::op
  std::vector<SlotId> inputs;   // one per tensor argument, in argument order, lists flattened
  std::vector<SlotId> outputs;  // one per op output; kNoId when nobody uses it
  Delivery delivery = Delivery::kFresh;
  bool operator==(const OpLaunch&) const = default;
};

/// A segment run lowered to kernel calls. Sizes in op arguments are read with the batch symbol replaced by
/// the rows of parts [first_part, last_part).
struct Run {
  std::vector<SegmentId> segments;
  std::string name;  // "mb0/layers.3.mlp", "mb0/fused(mm+relu)"
  int first_part = 0;
  int last_part = 1;
  StreamId stream = 0;
  std::vector<OpLaunch> launches;
  bool operator==(const Run&) const = default;
};

/// A graph output: a slot, a size or none.
struct PlanOutput {
  enum class Kind : uint8_t { kNone, kSlot, kSize };
  Kind kind = Kind::kNone;
  SlotId slot = kNoId;
  SizeExpr size;
  bool operator==(const PlanOutput&) const = default;
};

/// A kernel that runs in place of ops of the graph.
struct ReplacingOp {
  Op op;                    // its outputs are values of the graph; its name is unique in the plan
  std::vector<OpId> ops;    // of the graph, those that it replaces, in program order
  std::string replacement;  // its name in the strategy
  double tolerance = 0;     // see Replacement
  bool operator==(const ReplacingOp&) const = default;
};

/// A schedule lowered to flat per-stream programs. Immutable; many frames may run one plan at once.
struct Plan {
  GraphPtr graph;
  std::vector<ReplacingOp> replacing;
  std::string strategy;
  CutRule cut;
  std::vector<Guard> guards;
  std::vector<Stream> streams;
  std::vector<Run> runs;  // in issue order; a launch of run r is issued before that of run r+1
  std::vector<Slot> slots;
  std::vector<Buffer> buffers;
  std::vector<OutputStorage> output_storage;
  std::vector<PlanOutput> outputs;
  int32_t events = 0;

  /// The graph's op, or from graph->ops.size() on replacing[id - size].op.
  const Op& op(OpId id) const {
    const size_t own = graph->ops.size();
    return static_cast<size_t>(id) < own ? graph->ops[id] : replacing[static_cast<size_t>(id) - own].op;
  }
};
using PlanPtr = std::shared_ptr<const Plan>;

/// Lowers `schedule`: decides where each value lives, places events where an edge crosses streams, drops
/// waits that others imply, and packs buffers by happens-before lifetimes (first fit, largest first).
PlanPtr lower(const Schedule& schedule);

/// One instruction and the stream that it belongs to.
struct Step {
  Instruction::Kind kind = Instruction::Kind::kLaunch;
  StreamId stream = 0;
  int32_t id = kNoId;  // as in Instruction
};
using Program = std::vector<Step>;
/// What one thread does that serves the streams that `take` accepts: the launches of all of them in issue
/// order, each with the waits before it and the records and frees after it.
Program merge_streams(const Plan& plan, const std::function<bool(const Stream&)>& take);

/// Which runs are finished before a run starts, whatever the timing: a bit set per run.
class HappensBefore {
 public:
  explicit HappensBefore(size_t runs) : words_((runs + 63) / 64), bits_(runs * words_) {}
  bool before(RunId a, RunId b) const { return ((row(b)[a / 64] >> (a % 64)) & 1) != 0; }
  /// The first run that may not be finished when `run` starts; at most `run` itself.
  RunId first_unordered(RunId run) const;
  /// `a` is finished before `b` starts, and so is all that is finished before `a` starts.
  void order(RunId a, RunId b);

 private:
  uint64_t* row(RunId run) { return bits_.data() + static_cast<size_t>(run) * words_; }
  const uint64_t* row(RunId run) const { return bits_.data() + static_cast<size_t>(run) * words_; }
  size_t words_;
  std::vector<uint64_t> bits_;
};
/// The relation that the plan's streams and events guarantee.
HappensBefore happens_before(const Plan& plan);

/// Throws PlanError when an instruction names something that is not there, a wait precedes its record in
/// issue order, or a run is launched twice or never.
void check(const Plan& plan);

/// Text form of graph, plan and all: parse_plan(print(p)) == p.
std::string print(const Plan& plan);
PlanPtr parse_plan(std::string_view source);
bool operator==(const Plan& a, const Plan& b);

/// Sizes of one run: every expression of the plan evaluated, every buffer placed.
struct Binding {
  std::vector<int64_t> symbols;         // graph symbols, then part sizes: the key
  std::vector<int64_t> registers;       // of the size program
  std::vector<int64_t> buffer_offsets;  // bytes, by BufferId
  int64_t arena_bytes = 0;
  bool valid = false;
};

/// Evaluates a plan's sizes: a compiled program, so that a change of batch costs microseconds. Immutable and
/// thread-safe once built.
class Binder {
 public:
  explicit Binder(PlanPtr plan);
  /// Registers for a size of the plan, asked for while preparing. Not thread-safe; finish before bind().
  int reg(const SizeExpr& expr) { return program_.add(expr); }
  /// Binds the graph symbols' values (in Graph::symbols order). Cuts the batch. Returns whether anything
  /// changed since the binding was last filled. Throws PlanError when sizes are illegal for the plan.
  bool bind(const std::vector<int64_t>& graph_symbols, Binding& binding) const;
  /// Whether the plan's guards hold for these values.
  bool accepts(const std::vector<int64_t>& graph_symbols) const;

 private:
  PlanPtr plan_;
  SizeProgram program_;
  std::vector<int> buffer_bytes_;  // registers
  std::vector<BufferId> placement_order_;
  int batch_index_ = kNoId;
};

}  // namespace dynaflow
