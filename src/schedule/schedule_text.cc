#include <algorithm>
#include <map>

#include "dynaflow/schedule.h"

namespace dynaflow {

namespace {

constexpr std::pair<Guard::Op, const char*> kGuardOps[] = {
    {Guard::Op::kLess, "lt"}, {Guard::Op::kLessEqual, "le"}, {Guard::Op::kEqual, "eq"}};

text::Value integers(const auto& items) {
  std::vector<text::Value> values;
  for (const auto item : items) values.push_back(text::Value::integral(item));
  return text::Value::list(std::move(values));
}

text::Line stream_to_text(const std::string& name) {
  text::Line line;
  line.kind = "stream";
  line.args = {text::Value::string(name)};
  return line;
}

text::Line run_to_text(const Schedule& schedule, const SegmentRun& run) {
  text::Line line;
  line.kind = "run";
  std::vector<text::Value> names;
  for (SegmentId segment : run.segments)
    names.push_back(text::Value::string(schedule.partition->segments[segment].name));
  line.args = {names.size() == 1 ? names[0] : text::Value::list(std::move(names)),
               text::Value::integral(run.first_part), text::Value::integral(run.last_part),
               text::Value::string(schedule.streams[static_cast<size_t>(run.stream)])};
  if (run.replacement != kNoId) {
    const Replacement& replacement = schedule.replacements[static_cast<size_t>(run.replacement)];
    line.attrs.emplace_back("replace", text::Value::string(replacement.name));
  }
  if (!run.after.empty()) line.attrs.emplace_back("after", integers(run.after));
  return line;
}

int small_int(const text::Value& value) {
  if (value.as_int() < 0 || value.as_int() > INT32_MAX) value.fail("a small index");
  return static_cast<int>(value.as_int());
}

class ScheduleReader {
 public:
  ScheduleReader(PartitionPtr partition, Schedule& schedule) : schedule_(schedule) {
    const auto count = static_cast<SegmentId>(partition->segments.size());
    for (SegmentId id = 0; id < count; ++id) segments_[partition->segments[id].name] = id;
    schedule_.partition = std::move(partition);
  }

  void read(const text::Section& section) {
    schedule_.strategy = section.header.at("strategy").as_string();
    schedule_.cut = cut_from_text(section.header.at("cut"));
    for (const text::Line& line : section.lines) {
      if (line.kind == "stream" && line.args.size() == 1)
        schedule_.streams.push_back(line.args[0].as_string());
      else if (line.kind == "guard" && line.args.size() == 1)
        schedule_.guards.push_back(guard_from_text(line.args[0]));
      else if (line.kind == "replacement")
        read_replacement(line);
      else if (line.kind == "run" && line.args.size() == 4)
        read_run(line);
      else
        line.fail(
            "expected stream(name), guard(condition), replacement(name, target, arguments) or run(segments, "
            "first part, last part, stream)");
    }
  }

 private:
  void read_run(const text::Line& line) {
    SegmentRun run;
    const bool several = line.args[0].kind == text::Value::Kind::kList;
    for (const text::Value& name : several ? line.args[0].items : std::vector{line.args[0]}) {
      const auto found = segments_.find(name.as_string());
      if (found == segments_.end()) name.fail("the name of a segment");
      run.segments.push_back(found->second);
    }
    run.first_part = small_int(line.args[1]);
    run.last_part = small_int(line.args[2]);
    const auto stream =
        std::find(schedule_.streams.begin(), schedule_.streams.end(), line.args[3].as_string());
    if (stream == schedule_.streams.end()) line.args[3].fail("a stream declared above");
    run.stream = static_cast<int>(stream - schedule_.streams.begin());
    if (const text::Value* after = line.find("after"))
      for (const text::Value& item : after->as_list()) run.after.push_back(small_int(item));
    if (const text::Value* name = line.find("replace")) {
      const auto replacement = replacements_.find(name->as_string());
      if (replacement == replacements_.end()) name->fail("the name of a replacement above");
      run.replacement = replacement->second;
    }
    schedule_.runs.push_back(std::move(run));
  }

  void read_replacement(const text::Line& line) {
    schedule_.replacements.push_back(replacement_from_text(line));
    const std::string& name = schedule_.replacements.back().name;
    if (!replacements_.emplace(name, static_cast<int>(schedule_.replacements.size()) - 1).second)
      line.fail(formatted("two replacements are named '{}'", name));
  }

  Schedule& schedule_;
  std::map<std::string, SegmentId> segments_;
  std::map<std::string, int> replacements_;
};

}  // namespace

text::Value cut_to_text(const CutRule& rule) {
  std::vector<text::Value> items = {text::Value::integral(rule.parts), text::Value::integral(rule.min_rows)};
  switch (rule.kind) {
    case CutRule::Kind::kEven:
      return text::Value::call("even", std::move(items));
    case CutRule::Kind::kSizes:
      items.push_back(integers(rule.sizes));
      break;
    case CutRule::Kind::kFractions: {
      std::vector<text::Value> fractions;
      for (double fraction : rule.fractions) fractions.push_back(text::Value::floating(fraction));
      items.push_back(text::Value::list(std::move(fractions)));
      return text::Value::call("fractions", std::move(items));
    }
  }
  return text::Value::call("sizes", std::move(items));
}

namespace {

/// What cut() relies on.
void check_numbers(const CutRule& rule, const text::Value& value) {
  if (rule.parts < 1 || rule.parts > kMaxParts || rule.min_rows < 0)
    value.fail(formatted("1 to {} parts, and no negative minimum", kMaxParts));
  const size_t given = rule.kind == CutRule::Kind::kSizes ? rule.sizes.size() : rule.fractions.size();
  if (rule.kind != CutRule::Kind::kEven && given != static_cast<size_t>(rule.parts))
    value.fail("one number for each part");
  int64_t rows = 0;
  for (const int64_t size : rule.sizes)
    if (size < 0 || __builtin_add_overflow(rows, size, &rows)) value.fail("sizes of which none is negative");
  for (const double fraction : rule.fractions)
    if (!(fraction > 0 && fraction <= 1)) value.fail("fractions above 0 and at most 1");
}

}  // namespace

CutRule cut_from_text(const text::Value& value) {
  CutRule rule;
  const bool even = value.name == "even" && value.items.size() == 2;
  const bool sizes = value.name == "sizes" && value.items.size() == 3;
  const bool fractions = value.name == "fractions" && value.items.size() == 3;
  if (!even && !sizes && !fractions)
    value.fail("even(parts, min), fractions(parts, min, [...]) or sizes(...)");
  rule.parts = small_int(value.items[0]);
  rule.min_rows = value.items[1].as_int();
  if (sizes) {
    rule.kind = CutRule::Kind::kSizes;
    for (const text::Value& item : value.items[2].as_list()) rule.sizes.push_back(item.as_int());
  }
  if (fractions) {
    rule.kind = CutRule::Kind::kFractions;
    for (const text::Value& item : value.items[2].as_list()) rule.fractions.push_back(item.as_float());
  }
  check_numbers(rule, value);
  return rule;
}

text::Value to_text(const Guard& guard) {
  text::Value condition;
  for (const auto& [op, name] : kGuardOps)
    if (op == guard.op) condition = text::Value::call(name, {guard.left.to_text(), guard.right.to_text()});
  return guard.holds ? condition : text::Value::call("not", {std::move(condition)});
}

Guard guard_from_text(const text::Value& value) {
  if (value.kind == text::Value::Kind::kCall && value.name == "not" && value.items.size() == 1) {
    Guard guard = guard_from_text(value.items[0]);
    guard.holds = !guard.holds;
    return guard;
  }
  for (const auto& [op, name] : kGuardOps)
    if (value.kind == text::Value::Kind::kCall && value.name == name && value.items.size() == 2)
      return {op, SizeExpr::from_text(value.items[0]), SizeExpr::from_text(value.items[1]), true};
  value.fail("lt(a, b), le(a, b), eq(a, b) or not(...)");
}

text::Section to_text(const Schedule& schedule) {
  text::Section section;
  section.name = "schedule";
  section.header.kind = "schedule";
  section.header.attrs.emplace_back("strategy", text::Value::string(schedule.strategy));
  section.header.attrs.emplace_back("cut", cut_to_text(schedule.cut));
  for (const std::string& stream : schedule.streams) section.lines.push_back(stream_to_text(stream));
  for (const Guard& guard : schedule.guards) {
    text::Line line;
    line.kind = "guard";
    line.args = {to_text(guard)};
    section.lines.push_back(std::move(line));
  }
  for (const Replacement& replacement : schedule.replacements) section.lines.push_back(to_text(replacement));
  for (const SegmentRun& run : schedule.runs) section.lines.push_back(run_to_text(schedule, run));
  return section;
}

SchedulePtr schedule_from_text(const text::Section& section, PartitionPtr partition) {
  auto schedule = std::make_shared<Schedule>();
  ScheduleReader(std::move(partition), *schedule).read(section);
  check(*schedule);
  return schedule;
}

std::string print(const Schedule& schedule) { return text::print(to_text(schedule)); }

}  // namespace dynaflow
