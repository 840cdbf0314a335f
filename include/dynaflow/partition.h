#pragma once
#include <memory>
#include <string>
#include <vector>

#include "dynaflow/graph.h"
#include "dynaflow/layout.h"

namespace dynaflow {

using SegmentId = int32_t;  // index in Partition::segments, which is a topological order

/// Where to cut the graph. An op takes the tags of every annotation that matches it.
struct Annotation {
  enum class Kind : uint8_t {
    kFunc,    // ops whose short target matches; each match (a sequence is one match) is its own segment
    kModule,  // ops called by one instance of a module; each instance is its own segment
    kMark,    // ops under df.mark(name); each unbroken run of them is its own segment
  };
  Kind kind = Kind::kFunc;
  std::vector<std::string> patterns;  // kFunc: consecutive targets, 'a|b' either; else one. '*': any text
  std::vector<std::string> tags;
  bool rows_independent = false;  // each match treats rows of the batch independently: IndependentRegion
  bool operator==(const Annotation&) const = default;
};
/// Cuts around ops, "all_reduce" or {"mm", "all_reduce"}; patterns match the op's short or full target.
Annotation split_func(std::vector<std::string> patterns, std::vector<std::string> tags = {},
                      bool rows_independent = false);
/// Cuts around module instances, by class name ("LlamaMLP") or path ("model.layers.*.mlp").
Annotation split_module(std::string pattern, std::vector<std::string> tags = {},
                        bool rows_independent = false);
/// Cuts around regions marked with df.mark(name).
Annotation split_mark(std::string name, std::vector<std::string> tags = {}, bool rows_independent = false);

/// A convex set of ops that is scheduled as a unit.
struct Segment {
  std::string name;               // "layers.3.mlp"; unique in the partition
  std::vector<OpId> ops;          // in program order
  std::vector<std::string> tags;  // sorted
  SplitForm form = SplitForm::kWhole;
  std::string reason;             // why it is kMerged, else empty
  std::vector<SegmentId> inputs;  // segments that must come first (data and effects), sorted
  bool ordered = false;           // its parts run in their order: it reads per-batch state of the host

  bool has_tag(std::string_view tag) const;
  bool operator==(const Segment&) const = default;
};

/// An annotation that matched nothing, and the names nearest to its pattern.
struct Unmatched {
  Annotation annotation;
  std::vector<std::string> near_misses;
  bool operator==(const Unmatched&) const = default;
};

/// A graph cut into segments. Every op that launches a kernel is in exactly one; views are in the segment of
/// their source. Immutable.
struct Partition {
  GraphPtr graph;
  SplitAnalysis split;
  std::vector<Segment> segments;
  std::vector<Unmatched> unmatched;
};
using PartitionPtr = std::shared_ptr<const Partition>;

/// Cuts `graph` at the annotations, then at every change of split form, and names the segments. An op that
/// several annotations call independent is in the region of the first.
PartitionPtr partition(GraphPtr graph, const std::vector<Annotation>& annotations);

/// Text of the segments and of the independent regions; partition_from_text(to_text(p), p.graph) == p in
/// these, and in what the analysis makes of them.
text::Section to_text(const Partition& partition);
PartitionPtr partition_from_text(const text::Section& section, GraphPtr graph);
std::string print(const Partition& partition);

}  // namespace dynaflow
