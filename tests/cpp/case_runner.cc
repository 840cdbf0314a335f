#include "case_runner.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>

#include "dynaflow/plan.h"
#include "dynaflow/strategy.h"
#include "dynaflow/verify.h"

namespace dynaflow::testing {

namespace {

std::string read_file(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<std::string> names(const text::Value& list) {
  std::vector<std::string> result;
  for (const text::Value& item : list.as_list()) result.push_back(item.as_string());
  return result;
}

std::vector<std::string> string_args(const text::Line& line) {
  std::vector<std::string> result;
  for (const text::Value& item : line.args) result.push_back(item.as_string());
  return result;
}

class CaseRun {
 public:
  explicit CaseRun(const std::string& path) : document_(text::parse(read_file(path))) {}

  std::vector<std::string> run() {
    try {
      make();
      if (document_.find("error") != nullptr) differ("an error was expected, none came");
    } catch (const Error& error) {
      expect_error(error);
    }
    return std::move(differences_);
  }

 private:
  void differ(const std::string& what) { differences_.push_back(what); }
  template <typename T>
  void same(const std::string& what, const T& expected, const T& actual) {
    if (!(expected == actual))
      differ(what + " differs\n  expected: " + print_any(expected) + "\n  actual:   " + print_any(actual));
  }
  static std::string print_any(const std::string& text) { return text; }
  static std::string print_any(const std::vector<std::string>& items) {
    std::string result;
    for (const std::string& item : items) result += "\n    " + item;
    return result;
  }

  void expect_error(const Error& error) {
    const text::Section* section = document_.find("error");
    if (section == nullptr) return differ(std::string("unexpected ") + error.what());
    const text::Line& line = section->lines.at(0);
    if (line.kind != error.stage()) differ("expected a " + line.kind + ", got " + error.what());
    for (const std::string& part : string_args(line))
      if (std::string(error.what()).find(part) == std::string::npos)
        differ("the error does not say '" + part + "': " + error.what());
  }

  void make() {
    auto graph =
        std::make_shared<const Graph>(reinplace(apply_corrections(graph_from_text(document_.at("graph")))));
    if (!(parse_graph(print(*graph)) == *graph)) differ("the graph does not survive printing and reading");
    const text::Section* schedule = document_.find("schedule");
    StrategyPtr strategy = schedule != nullptr ? make_strategy(schedule->header) : nullptr;
    std::vector<Annotation> annotations = strategy ? strategy->partition() : std::vector<Annotation>();
    for (const Annotation& annotation : read_cut()) annotations.push_back(annotation);
    partition_ = partition(graph, annotations);
    const PartitionPtr again = partition_from_text(text::parse(print(*partition_)).at("partition"), graph);
    if (!(again->segments == partition_->segments) || !(again->split.regions == partition_->split.regions) ||
        !(again->split.layouts == partition_->split.layouts))
      differ("the partition does not survive printing and reading");
    check_layouts();
    check_segments();
    check_unmatched();
    if (schedule != nullptr) make_plan(*schedule, strategy.get());
  }

  static StrategyPtr make_strategy(const text::Line& header) {
    if (header.kind == "script") return nullptr;
    StrategyRegistry registry;
    register_builtin_strategies(registry);
    return registry.make(header.kind, StrategyOptions(header.attrs.begin(), header.attrs.end()));
  }

  std::vector<Annotation> read_cut() const {
    std::vector<Annotation> annotations;
    const text::Section* section = document_.find("cut");
    if (section == nullptr) return annotations;
    for (const text::Line& line : section->lines) {
      const text::Value* tags = line.find("tags");
      const std::vector<std::string> tag_names = tags ? names(*tags) : std::vector<std::string>();
      const text::Value* word = line.find("rows_independent");
      const bool independent = word != nullptr && word->as_bool();
      if (line.kind == "func")
        annotations.push_back(split_func(string_args(line), tag_names, independent));
      else if (line.kind == "module")
        annotations.push_back(split_module(string_args(line).at(0), tag_names, independent));
      else if (line.kind == "mark")
        annotations.push_back(split_mark(string_args(line).at(0), tag_names, independent));
      else
        line.fail("expected func, module or mark");
    }
    return annotations;
  }

  int64_t value_of(std::string_view name) const {
    const text::Section* sizes = document_.find("sizes");
    if (sizes != nullptr)
      if (const text::Value* value = sizes->header.find(name)) return value->as_int();
    const Symbol* symbol = partition_->graph->find_symbol(name);
    if (symbol == nullptr) throw InternalError("unknown symbol in a case");
    return symbol->hint;
  }

  void make_plan(const text::Section& section, const Strategy* strategy) {
    const auto sizes = [this](std::string_view name) { return value_of(name); };
    const SchedulePtr schedule = strategy ? make_schedule(partition_, *strategy, sizes) : run_script(section);
    const SchedulePtr again = schedule_from_text(text::parse(print(*schedule)).at("schedule"), partition_);
    if (print(*again) != print(*schedule)) differ("the schedule does not survive printing and reading");
    const PlanPtr plan = lower(*schedule);
    check_verified(*plan);
    if (!(*parse_plan(print(*plan)) == *plan)) differ("the plan does not survive printing and reading");
    check_code(*plan);
    check_calls(*plan);
    check_memory(plan);
  }

  SchedulePtr run_script(const text::Section& section) const {
    Scheduler s(partition_, "script", [this](std::string_view name) { return value_of(name); });
    std::vector<Replacement> replacements;
    for (const text::Line& line : section.lines) {
      if (line.kind == "split")
        s.split(static_cast<int>(line.args.at(0).as_int()));
      else if (line.kind == "fractions")
        s.split(floats(line.args.at(0)));
      else if (line.kind == "sizes")
        s.split(integers(line.args.at(0)));
      else if (line.kind == "replacement")
        replacements.push_back(replacement_from_text(line));
      else if (line.kind == "run")
        execute(s, line, replacements);
      else if (line.kind == "rest")
        s.run_sequentially();
      else
        line.fail("expected split, fractions, sizes, replacement, run or rest");
    }
    return s.finish();
  }

  ReadyOp find_op(const std::string& name, int part) const {
    for (SegmentId id = 0; id < static_cast<SegmentId>(partition_->segments.size()); ++id)
      if (partition_->segments[id].name == name) return {&partition_->segments[id], id, part, part + 1};
    throw InternalError("no segment '" + name + "' in a case");
  }

  void execute(Scheduler& s, const text::Line& line, const std::vector<Replacement>& replacements) const {
    ExecuteOptions options;
    options.stream = line.args.at(3).as_string();
    if (const text::Value* after = line.find("after"))
      for (const text::Value& item : after->as_list())
        options.after.push_back(
            find_op(item.items.at(0).as_string(), static_cast<int>(item.items.at(1).as_int())));
    std::vector<ReadyOp> ops;
    const int first = static_cast<int>(line.args.at(1).as_int());
    const int last = static_cast<int>(line.args.at(2).as_int());
    const bool several = line.args.at(0).kind == text::Value::Kind::kList;
    for (const text::Value& name : several ? line.args[0].items : std::vector{line.args[0]})
      for (int part = first; part < last; ++part) ops.push_back(find_op(name.as_string(), part));
    if (const text::Value* name = line.find("replace"))
      for (const Replacement& replacement : replacements)
        if (replacement.name == name->as_string()) options.replacement = replacement;
    s.execute(ops, options);
  }

  static std::vector<double> floats(const text::Value& list) {
    std::vector<double> result;
    for (const text::Value& item : list.as_list()) result.push_back(item.as_float());
    return result;
  }
  static std::vector<int64_t> integers(const text::Value& list) {
    std::vector<int64_t> result;
    for (const text::Value& item : list.as_list()) result.push_back(item.as_int());
    return result;
  }

  void check_layouts() {
    const text::Section* section = document_.find("layouts");
    if (section == nullptr) return;
    const Graph& graph = *partition_->graph;
    for (const text::Line& line : section->lines)
      for (size_t id = 0; id < graph.values.size(); ++id)
        if (graph.values[id].name == line.results.at(0)) {
          text::Line bare = line;
          bare.results.clear();
          const std::string layout = print(partition_->split.layouts[id]);
          same("the layout of %" + graph.values[id].name, text::print(bare),
               layout.back() == ')' ? layout : layout + "()");
        }
  }

  void check_segments() {
    const text::Section* section = document_.find("segments");
    if (section == nullptr) return;
    const text::Section actual = to_text(*partition_);
    if (actual.lines.size() != section->lines.size()) differ("the segments are\n" + text::print(actual));
    for (size_t i = 0; i < std::min(actual.lines.size(), section->lines.size()); ++i) {
      const text::Line& expected = section->lines[i];
      bool equal = expected.kind == actual.lines[i].kind && expected.args == actual.lines[i].args;
      for (const auto& [key, value] : expected.attrs) {
        const text::Value* found = actual.lines[i].find(key);
        const bool partly =
            key == "reason" && found != nullptr && found->name.find(value.name) != std::string::npos;
        equal &= partly || (found != nullptr && *found == value);
      }
      if (!equal) same("segment " + std::to_string(i), text::print(expected), text::print(actual.lines[i]));
    }
  }

  void check_unmatched() {
    const text::Section* section = document_.find("unmatched");
    if (section == nullptr) return;
    std::vector<std::string> expected;
    std::vector<std::string> actual;
    for (const text::Line& line : section->lines) expected.push_back(text::print(line));
    for (const Unmatched& unmatched : partition_->unmatched) {
      text::Line line;
      line.kind = "near";
      std::vector<text::Value> near;
      for (const std::string& name : unmatched.near_misses) near.push_back(text::Value::string(name));
      line.args = {text::Value::string(unmatched.annotation.patterns.at(0)), text::Value::list(near)};
      actual.push_back(text::print(line));
    }
    same("unmatched", expected, actual);
  }

  static std::string code_line(const Plan& plan, const Stream& stream) {
    text::Line line;
    line.kind = stream.name;
    for (const Instruction& instruction : stream.code) {
      const text::Value id = text::Value::integral(instruction.id);
      switch (instruction.kind) {
        case Instruction::Kind::kLaunch:
          line.args.push_back(text::Value::string(plan.runs[instruction.id].name));
          break;
        case Instruction::Kind::kRecord:
          line.args.push_back(text::Value::call("record", {id}));
          break;
        case Instruction::Kind::kWait:
          line.args.push_back(text::Value::call("wait", {id}));
          break;
        case Instruction::Kind::kFree: {
          const ValueId value = plan.slots[static_cast<size_t>(instruction.id)].value;
          line.args.push_back(text::Value::call("free", {text::Value::ref(plan.graph->values[value].name)}));
          break;
        }
      }
    }
    return text::print(line);
  }

  void check_code(const Plan& plan) {
    const text::Section* section = document_.find("code");
    if (section == nullptr) return;
    std::vector<std::string> expected;
    std::vector<std::string> actual;
    for (const text::Line& line : section->lines) expected.push_back(text::print(line));
    for (const Stream& stream : plan.streams) actual.push_back(code_line(plan, stream));
    same("the code", expected, actual);
  }

  /// `run("mb0/mm", ["a"], ["aten.mm.default"], [out])`: what each run launches, and how it is delivered.
  void check_calls(const Plan& plan) {
    const text::Section* section = document_.find("calls");
    if (section == nullptr) return;
    constexpr const char* kDeliveries[] = {"out", "over_input", "in_place", "fresh", "copy"};
    std::vector<std::string> expected;
    std::vector<std::string> actual;
    for (const text::Line& line : section->lines) expected.push_back(text::print(line));
    for (const Run& run : plan.runs) {
      std::vector<text::Value> calls;
      std::vector<text::Value> targets;
      std::vector<text::Value> deliveries;
      for (const OpLaunch& launch : run.launches) {
        calls.push_back(text::Value::string(plan.op(launch.op).name));
        targets.push_back(text::Value::string(plan.op(launch.op).target));
        deliveries.push_back(text::Value::identifier(kDeliveries[static_cast<size_t>(launch.delivery)]));
      }
      text::Line line;
      line.kind = "run";
      line.args = {text::Value::string(run.name), text::Value::list(calls), text::Value::list(targets),
                   text::Value::list(deliveries)};
      actual.push_back(text::print(line));
    }
    same("the calls", expected, actual);
  }

  void check_memory(const PlanPtr& plan) {
    const text::Section* section = document_.find("memory");
    if (section == nullptr) return;
    Binder binder(plan);
    Binding binding;
    std::vector<int64_t> symbols;
    for (const Symbol& symbol : plan->graph->symbols) symbols.push_back(value_of(symbol.name));
    binder.bind(symbols, binding);
    same("the arena's bytes", std::to_string(section->header.at("arena").as_int()),
         std::to_string(binding.arena_bytes));
  }

  text::Document document_;
  PartitionPtr partition_;
  std::vector<std::string> differences_;
};

}  // namespace

std::vector<std::string> run_case(const std::string& path) { return CaseRun(path).run(); }

}  // namespace dynaflow::testing
