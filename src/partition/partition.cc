#include "dynaflow/partition.h"

#include <algorithm>
#include <map>
#include <set>

#include "partition/dependencies.h"
#include "partition/match.h"
#include "partition/names.h"

namespace dynaflow {

namespace {

/// Collects ops in program order. Each unbroken run of ops of the same match is a region; in it, ops of one
/// split form gather in levels: an op is one level above an input of another form, and work that every part
/// shares comes first. A segment is one form on one level, so segments are convex and few.
class Segmenter {
 public:
  Segmenter(const Graph& graph, const SplitAnalysis& split, const Matches& matches)
      : graph_(graph),
        split_(split),
        matches_(matches),
        before_(dependencies(graph)),
        level_(graph.ops.size(), 0),
        region_of_(graph.ops.size(), kNoId),
        segment_of_(graph.ops.size(), kNoId) {}

  std::vector<Segment> run() {
    std::vector<OpId> region;
    for (OpId id : launched_ops(graph_)) {
      if (!region.empty() && matches_.group[id] != matches_.group[region.front()]) close(region);
      set_level(id);
      region.push_back(id);
    }
    close(region);
    for (size_t id = 0; id < segments_.size(); ++id) finish(static_cast<SegmentId>(id));
    // Where two segments would share a name, the one that does the work gets it bare.
    for (Segment& segment : segments_)
      if (has_heavy_op(graph_, segment.ops)) give_name(segment);
    for (Segment& segment : segments_)
      if (segment.name.empty()) give_name(segment);
    return std::move(segments_);
  }

 private:
  void set_level(OpId id) {
    region_of_[id] = region_;
    level_[id] = split_.forms[id] == SplitForm::kWhole ? 0 : 1;
    for (OpId other : before_[id])
      if (region_of_[other] == region_)
        level_[id] = std::max(level_[id], level_[other] + (split_.forms[other] == split_.forms[id] ? 0 : 1));
  }

  void close(std::vector<OpId>& region) {
    std::map<std::pair<int, SplitForm>, std::vector<OpId>> groups;
    for (OpId id : region) groups[{level_[id], split_.forms[id]}].push_back(id);
    for (auto& [key, ops] : groups) {
      for (OpId id : ops) segment_of_[id] = static_cast<SegmentId>(segments_.size());
      Segment& segment = segments_.emplace_back();
      segment.form = key.second;
      segment.ops = std::move(ops);
    }
    region.clear();
    ++region_;
  }

  void finish(SegmentId id) {
    Segment& segment = segments_[id];
    std::set<SegmentId> inputs;
    std::set<std::string> tags;
    for (OpId op : segment.ops) {
      for (OpId other : before_[op])
        if (segment_of_[other] != kNoId) inputs.insert(segment_of_[other]);
      tags.insert(matches_.tags[op].begin(), matches_.tags[op].end());
      if (graph_.ops[op].effects.reads_context) segment.ordered = true;
      if (segment.reason.empty()) segment.reason = split_.reasons[op];
    }
    inputs.erase(id);
    segment.inputs.assign(inputs.begin(), inputs.end());
    segment.tags.assign(tags.begin(), tags.end());
  }

  void give_name(Segment& segment) {
    const std::string name = segment_name(graph_, segment.ops);
    const int copies = ++names_[name];
    segment.name = copies == 1 ? name : formatted("{}#{}", name, copies);
  }

  const Graph& graph_;
  const SplitAnalysis& split_;
  const Matches& matches_;
  std::vector<std::vector<OpId>> before_;  // by OpId
  std::vector<int> level_;                 // by OpId, within its region
  std::vector<int> region_of_;             // by OpId
  std::vector<SegmentId> segment_of_;      // by OpId
  std::vector<Segment> segments_;
  std::map<std::string, int> names_;
  int region_ = 0;
};

Annotation annotate(Annotation::Kind kind, std::vector<std::string> patterns, std::vector<std::string> tags,
                    bool rows_independent) {
  std::sort(tags.begin(), tags.end());
  return {kind, std::move(patterns), std::move(tags), rows_independent};
}

constexpr std::pair<SplitForm, const char*> kForms[] = {
    {SplitForm::kWhole, "whole"}, {SplitForm::kSplit, "split"}, {SplitForm::kMerged, "merged"}};

text::Value strings(const std::vector<std::string>& items) {
  std::vector<text::Value> values;
  for (const std::string& item : items) values.push_back(text::Value::string(item));
  return text::Value::list(std::move(values));
}

/// kind("name", ["op", ...])
text::Line named_ops(std::string kind, const Graph& graph, const std::string& name,
                     const std::vector<OpId>& ids) {
  text::Line line;
  line.kind = std::move(kind);
  std::vector<std::string> ops;
  for (OpId id : ids) ops.push_back(graph.ops[id].name);
  line.args = {text::Value::string(name), strings(ops)};
  return line;
}

text::Line segment_to_text(const Graph& graph, const Segment& segment) {
  text::Line line = named_ops("segment", graph, segment.name, segment.ops);
  for (const auto& [form, name] : kForms)
    if (form == segment.form) line.attrs.emplace_back("form", text::Value::identifier(name));
  if (!segment.tags.empty()) line.attrs.emplace_back("tags", strings(segment.tags));
  std::vector<text::Value> inputs;
  for (SegmentId input : segment.inputs) inputs.push_back(text::Value::integral(input));
  line.attrs.emplace_back("inputs", text::Value::list(std::move(inputs)));
  if (!segment.reason.empty()) line.attrs.emplace_back("reason", text::Value::string(segment.reason));
  if (segment.ordered) line.attrs.emplace_back("ordered", text::Value::boolean(true));
  return line;
}

SplitForm read_form(const text::Value& value) {
  for (const auto& [form, name] : kForms)
    if (value.as_name() == name) return form;
  value.fail("whole, split or merged");
}

using OpNames = std::map<std::string_view, OpId>;

std::vector<OpId> read_ops(const text::Line& line, const OpNames& by_name) {
  if (line.args.size() != 2) line.fail("expected segment or independent, and (\"name\", [\"op\", ...])");
  std::vector<OpId> ops;
  for (const text::Value& name : line.args[1].as_list()) {
    const auto found = by_name.find(name.as_string());
    if (found == by_name.end()) name.fail("the name of an op of the graph");
    ops.push_back(found->second);
  }
  return ops;
}

/// `taken`: ops of regions above.
IndependentRegion read_region(const text::Line& line, const OpNames& by_name, std::set<OpId>& taken) {
  IndependentRegion region{"", read_ops(line, by_name)};
  region.name = line.args[0].as_string();
  for (OpId id : region.ops)
    if (!taken.insert(id).second) line.args[1].fail("ops, each in one region only");
  return region;
}

/// `above`: how many segments come before it.
Segment read_segment(const text::Line& line, const OpNames& by_name, size_t above) {
  Segment segment;
  segment.ops = read_ops(line, by_name);
  segment.name = line.args[0].as_string();
  segment.form = read_form(line.at("form"));
  if (const text::Value* tags = line.find("tags"))
    for (const text::Value& tag : tags->as_list()) segment.tags.push_back(tag.as_string());
  for (const text::Value& input : line.at("inputs").as_list()) {
    const int64_t id = input.as_int();
    if (id < 0 || id >= static_cast<int64_t>(above)) input.fail("the number of a segment above");
    segment.inputs.push_back(static_cast<SegmentId>(id));
  }
  if (const text::Value* reason = line.find("reason")) segment.reason = reason->as_string();
  if (const text::Value* ordered = line.find("ordered")) segment.ordered = ordered->as_bool();
  return segment;
}

}  // namespace

Annotation split_func(std::vector<std::string> patterns, std::vector<std::string> tags,
                      bool rows_independent) {
  return annotate(Annotation::Kind::kFunc, std::move(patterns), std::move(tags), rows_independent);
}
Annotation split_module(std::string pattern, std::vector<std::string> tags, bool rows_independent) {
  return annotate(Annotation::Kind::kModule, {std::move(pattern)}, std::move(tags), rows_independent);
}
Annotation split_mark(std::string name, std::vector<std::string> tags, bool rows_independent) {
  return annotate(Annotation::Kind::kMark, {std::move(name)}, std::move(tags), rows_independent);
}

bool Segment::has_tag(std::string_view tag) const {
  return std::find(tags.begin(), tags.end(), tag) != tags.end();
}

PartitionPtr partition(GraphPtr graph, const std::vector<Annotation>& annotations) {
  auto result = std::make_shared<Partition>();
  Matches matches = match(*graph, annotations);
  result->split = analyze_split(*graph, matches.regions);
  result->segments = Segmenter(*graph, result->split, matches).run();
  result->unmatched = std::move(matches.unmatched);
  result->graph = std::move(graph);
  return result;
}

text::Section to_text(const Partition& partition) {
  text::Section section;
  section.name = "partition";
  for (const Segment& segment : partition.segments)
    section.lines.push_back(segment_to_text(*partition.graph, segment));
  for (const RegionSplit& split : partition.split.regions)
    section.lines.push_back(named_ops("independent", *partition.graph, split.region.name, split.region.ops));
  return section;
}

PartitionPtr partition_from_text(const text::Section& section, GraphPtr graph) {
  auto result = std::make_shared<Partition>();
  OpNames by_name;
  std::vector<IndependentRegion> regions;
  std::set<OpId> taken;
  for (OpId id = 0; id < static_cast<OpId>(graph->ops.size()); ++id) by_name[graph->ops[id].name] = id;
  for (const text::Line& line : section.lines) {
    if (line.kind == "segment")
      result->segments.push_back(read_segment(line, by_name, result->segments.size()));
    else if (line.kind == "independent")
      regions.push_back(read_region(line, by_name, taken));
    else
      line.fail("expected segment or independent");
  }
  result->split = analyze_split(*graph, regions);
  result->graph = std::move(graph);
  return result;
}

std::string print(const Partition& partition) { return text::print(to_text(partition)); }

}  // namespace dynaflow
