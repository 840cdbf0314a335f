// layer: schedule
#pragma once
#include <span>
#include <string>
#include <vector>

#include "dynaflow/partition.h"

namespace dynaflow {

/// Segments of one launch, seen as one kernel that could take their place.
struct Region {
  std::vector<OpId> ops;         // that launch, in program order
  std::vector<ValueId> inputs;   // read from outside, in order of first use
  std::vector<ValueId> outputs;  // made inside and read outside, in order of definition
};

/// The regions of one partition, which must outlive this. Immutable once made.
class Regions {
 public:
  explicit Regions(const Partition& partition);
  Region of(std::span<const SegmentId> segments) const;
  /// `ops`: of the partition's segments, in program order.
  Region of_ops(std::vector<OpId> ops) const;

 private:
  const Partition& partition_;
  std::vector<std::vector<OpId>> readers_;  // by root value: launched ops
  std::vector<bool> returned_;              // by root value: the caller gets it
};

/// Why no kernel may replace the region, or empty: a collective, an effect, shared storage, no result.
std::string irreplaceable(const Graph& graph, const Region& region);

/// A kernel that runs in place of a region's ops: a dispatcher op without effects. It takes the region's
/// inputs and returns its outputs, fresh or through its out= overload. The sizes of its results are those of
/// the graph.
struct Replacement {
  std::string name;        // for messages and reports
  std::string target;      // "mylib.fused.default"
  std::string out_target;  // its overload that writes where it is told, or empty
  bool opaque = false;     // it needs the Python interpreter
  ArgList args;  // of the target, in its schema's order; ValueRef{i} is input i. Empty: all inputs in order
  double tolerance = 0;  // by how much a result may differ from the ops' own; 0: the bits are equal

  bool operator==(const Replacement&) const = default;
};
/// The op that `replacement` is in place of `region`. Throws ScheduleError where it takes an input that the
/// region does not have.
Op replacing_op(const Replacement& replacement, const Region& region);

text::Line to_text(const Replacement& replacement);
Replacement replacement_from_text(const text::Line& line);
/// Reads one argument of a replacement, as its text has it: "%in0" is input 0.
Arg replacement_arg(const text::Value& value);

/// A tensor that a region reads or makes, on the parts of one launch. Sizes are over the graph's symbols and
/// the part sizes p0, p1...
struct TensorSpec {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<SizeExpr> shape;
  std::vector<SizeExpr> strides;
};
/// What a replacement of a region has to take and to return.
struct Signature {
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
};
/// "(%x float32[p0, 64], %w float32[64, 64]) -> (%c float32[p0, 64])"
std::string print(const Signature& signature);

}  // namespace dynaflow
