#include <map>

#include "dynaflow/plan.h"

namespace dynaflow {

namespace {

using text::Line;

constexpr std::pair<StreamKind, const char*> kStreamKinds[] = {
    {StreamKind::kHost, "host"}, {StreamKind::kAsync, "async"}, {StreamKind::kThread, "thread"}};
constexpr std::pair<Instruction::Kind, const char*> kInstructions[] = {{Instruction::Kind::kLaunch, "launch"},
                                                                       {Instruction::Kind::kRecord, "record"},
                                                                       {Instruction::Kind::kWait, "wait"},
                                                                       {Instruction::Kind::kFree, "free"}};
constexpr std::pair<Root, const char*> kRoots[] = {{Root::kArena, "arena"},
                                                   {Root::kArgument, "argument"},
                                                   {Root::kConstant, "constant"},
                                                   {Root::kOutput, "output"},
                                                   {Root::kKernel, "kernel"}};
constexpr std::pair<Delivery, const char*> kDeliveries[] = {{Delivery::kOut, "out"},
                                                            {Delivery::kOverInput, "over_input"},
                                                            {Delivery::kInPlace, "in_place"},
                                                            {Delivery::kFresh, "fresh"},
                                                            {Delivery::kCopy, "copy"}};

template <typename Enum, size_t N>
const char* name_of(const std::pair<Enum, const char*> (&table)[N], Enum value) {
  for (const auto& [key, name] : table)
    if (key == value) return name;
  throw InternalError("an enumerator has no name");
}

template <typename Enum, size_t N>
Enum named(const std::pair<Enum, const char*> (&table)[N], const text::Value& value,
           const std::string& name) {
  std::string known;
  for (const auto& [key, text] : table) {
    if (name == text) return key;
    known += formatted("{}{}", known.empty() ? "" : ", ", text);
  }
  value.fail("one of " + known);
}

text::Value integers(const std::vector<int32_t>& items) {
  std::vector<text::Value> values;
  for (int32_t item : items)
    values.push_back(item == kNoId ? text::Value::none() : text::Value::integral(item));
  return text::Value::list(std::move(values));
}
text::Value sizes(const std::vector<SizeExpr>& items) {
  std::vector<text::Value> values;
  for (const SizeExpr& item : items) values.push_back(item.to_text());
  return text::Value::list(std::move(values));
}

Line make_line(const char* kind, std::vector<text::Value> args) {
  Line line;
  line.kind = kind;
  line.args = std::move(args);
  return line;
}

Line slot_to_text(const Plan& plan, const Slot& slot) {
  return make_line(
      "slot", {text::Value::ref(plan.graph->values[slot.value].name), text::Value::integral(slot.first_part),
               text::Value::integral(slot.last_part),
               text::Value::call(name_of(kRoots, slot.root), {text::Value::integral(slot.index)}),
               sizes(slot.meta->shape), sizes(slot.meta->strides), slot.meta->offset.to_text()});
}

Line output_to_text(const PlanOutput& output) {
  switch (output.kind) {
    case PlanOutput::Kind::kNone:
      break;
    case PlanOutput::Kind::kSlot:
      return make_line("result", {text::Value::call("slot", {text::Value::integral(output.slot)})});
    case PlanOutput::Kind::kSize:
      return make_line("result", {text::Value::call("size", {output.size.to_text()})});
  }
  return make_line("result", {text::Value::none()});
}

Line replacing_to_text(const Plan& plan, const ReplacingOp& replacing) {
  const auto name_of = [&](ValueId id) { return plan.graph->values[id].name; };
  const Op& op = replacing.op;
  Line line;
  line.kind = op.target;
  for (ValueId output : op.outputs) line.results.push_back(name_of(output));
  for (const Arg& arg : op.args) line.args.push_back(arg_to_text(arg, name_of));
  std::vector<text::Value> ops;
  for (OpId id : replacing.ops) ops.push_back(text::Value::string(plan.graph->ops[id].name));
  line.attrs = {{"name", text::Value::string(op.name)},
                {"replacement", text::Value::string(replacing.replacement)},
                {"replaces", text::Value::list(std::move(ops))}};
  if (!op.out_target.empty()) line.attrs.emplace_back("out_target", text::Value::string(op.out_target));
  if (op.kind == OpKind::kOpaque) line.attrs.emplace_back("opaque", text::Value::boolean(true));
  if (replacing.tolerance != 0)
    line.attrs.emplace_back("tolerance", text::Value::floating(replacing.tolerance));
  return line;
}

void runs_to_text(const Plan& plan, std::vector<Line>& lines) {
  for (const Run& run : plan.runs) {
    lines.push_back(make_line(
        "run", {text::Value::string(run.name),
                run.segments.size() == 1 ? text::Value::integral(run.segments[0]) : integers(run.segments),
                text::Value::integral(run.first_part), text::Value::integral(run.last_part),
                text::Value::integral(run.stream)}));
    for (const OpLaunch& launch : run.launches)
      lines.push_back(make_line("call", {text::Value::string(plan.op(launch.op).name),
                                         integers(launch.inputs), integers(launch.outputs),
                                         text::Value::identifier(name_of(kDeliveries, launch.delivery))}));
  }
}

Line stream_to_text(const Stream& stream) {
  std::vector<text::Value> code;
  for (const Instruction& instruction : stream.code)
    code.push_back(
        text::Value::call(name_of(kInstructions, instruction.kind), {text::Value::integral(instruction.id)}));
  return make_line("stream", {text::Value::string(stream.name),
                              text::Value::identifier(name_of(kStreamKinds, stream.kind)),
                              text::Value::list(std::move(code))});
}

text::Section plan_section(const Plan& plan) {
  text::Section section;
  section.name = "plan";
  section.header.kind = "plan";
  section.header.attrs = {{"strategy", text::Value::string(plan.strategy)},
                          {"cut", cut_to_text(plan.cut)},
                          {"events", text::Value::integral(plan.events)}};
  std::vector<Line>& lines = section.lines;
  for (const Guard& guard : plan.guards) lines.push_back(make_line("guard", {to_text(guard)}));
  for (const ReplacingOp& replacing : plan.replacing) lines.push_back(replacing_to_text(plan, replacing));
  for (const Buffer& buffer : plan.buffers)
    lines.push_back(make_line("buffer", {buffer.bytes.to_text(), integers(buffer.above)}));
  for (const OutputStorage& storage : plan.output_storage)
    lines.push_back(make_line("storage", {text::Value::identifier(std::string(dtype_name(storage.dtype))),
                                          storage.elements.to_text()}));
  for (const Slot& slot : plan.slots) lines.push_back(slot_to_text(plan, slot));
  runs_to_text(plan, lines);
  for (const Stream& stream : plan.streams) lines.push_back(stream_to_text(stream));
  for (const PlanOutput& output : plan.outputs) lines.push_back(output_to_text(output));
  return section;
}

class PlanReader {
 public:
  explicit PlanReader(Plan& plan) : plan_(plan) {
    const Graph& graph = *plan.graph;
    for (size_t id = 0; id < graph.values.size(); ++id)
      values_[graph.values[id].name] = static_cast<ValueId>(id);
    for (size_t id = 0; id < graph.ops.size(); ++id) ops_[graph.ops[id].name] = static_cast<OpId>(id);
  }

  void read(const text::Section& section) {
    plan_.strategy = section.header.at("strategy").as_string();
    plan_.cut = cut_from_text(section.header.at("cut"));
    plan_.events = integer(section.header.at("events"));
    for (const Line& line : section.lines) read_line(line);
  }

 private:
  void read_line(const Line& line) {
    const size_t count = line.args.size();
    if (!line.results.empty())
      read_replacing(line);
    else if (line.kind == "guard" && count == 1)
      plan_.guards.push_back(guard_from_text(line.args[0]));
    else if (line.kind == "buffer" && count == 2)
      plan_.buffers.push_back({SizeExpr::from_text(line.args[0]), ids(line.args[1])});
    else if (line.kind == "storage" && count == 2)
      plan_.output_storage.push_back(
          {dtype_from_name(line.args[0].as_name()), SizeExpr::from_text(line.args[1])});
    else if (line.kind == "slot" && count == 7)
      read_slot(line);
    else if (line.kind == "run" && count == 5)
      read_run(line);
    else if (line.kind == "call" && count == 4)
      read_call(line);
    else if (line.kind == "stream" && count == 3)
      read_stream(line);
    else if (line.kind == "result" && count == 1)
      read_result(line.args[0]);
    else
      line.fail(formatted("'{}' with {} arguments is no line of a plan", line.kind, count));
  }

  ValueId find_value(const text::Value& ref) const {
    const auto value = values_.find(ref.as_ref());
    if (value == values_.end()) ref.fail("a value of the graph");
    return value->second;
  }

  void read_replacing(const Line& line) {
    ReplacingOp replacing;
    Op& op = replacing.op;
    op.target = line.kind;
    op.name = line.at("name").as_string();
    for (const std::string& result : line.results) {
      const auto value = values_.find(result);
      if (value == values_.end()) line.fail(formatted("%{} is no value of the graph", result));
      op.outputs.push_back(value->second);
    }
    for (const text::Value& arg : line.args)
      op.args.push_back(
          arg_from_text(arg, [this](const text::Value& ref) { return find_value(ref); }, names_));
    for (const text::Value& name : line.at("replaces").as_list()) {
      const auto found = ops_.find(name.as_string());
      const bool own = found != ops_.end() && found->second < static_cast<OpId>(plan_.graph->ops.size());
      if (!own) name.fail("the name of an op of the graph");
      replacing.ops.push_back(found->second);
    }
    replacing.replacement = line.at("replacement").as_string();
    if (const text::Value* target = line.find("out_target")) op.out_target = target->as_string();
    if (const text::Value* opaque = line.find("opaque"); opaque != nullptr && opaque->as_bool())
      op.kind = OpKind::kOpaque;
    if (const text::Value* tolerance = line.find("tolerance")) replacing.tolerance = tolerance->as_float();
    const auto id = static_cast<OpId>(plan_.graph->ops.size() + plan_.replacing.size());
    if (!ops_.emplace(op.name, id).second) line.fail(formatted("two ops are named '{}'", op.name));
    plan_.replacing.push_back(std::move(replacing));
  }

  void read_slot(const Line& line) {
    if (line.args[3].kind != text::Value::Kind::kCall || line.args[3].items.size() != 1)
      line.args[3].fail("arena(n), argument(n), constant(n), output(n) or kernel(n)");
    Slot slot;
    slot.value = find_value(line.args[0]);
    slot.first_part = integer(line.args[1]);
    slot.last_part = integer(line.args[2]);
    slot.root = named(kRoots, line.args[3], line.args[3].name);
    slot.index = integer(line.args[3].items[0]);
    TensorMeta meta;
    meta.dtype = plan_.graph->values[slot.value].meta->dtype;
    for (const text::Value& size : line.args[4].as_list())
      meta.shape.push_back(pool_.share(SizeExpr::from_text(size)));
    for (const text::Value& stride : line.args[5].as_list())
      meta.strides.push_back(pool_.share(SizeExpr::from_text(stride)));
    meta.offset = pool_.share(SizeExpr::from_text(line.args[6]));
    slot.meta = metas_.share(std::move(meta));
    plan_.slots.push_back(std::move(slot));
  }

  void read_run(const Line& line) {
    Run run;
    run.name = line.args[0].as_string();
    const bool several = line.args[1].kind == text::Value::Kind::kList;
    run.segments = several ? ids(line.args[1]) : std::vector{integer(line.args[1])};
    run.first_part = integer(line.args[2]);
    run.last_part = integer(line.args[3]);
    run.stream = integer(line.args[4]);
    plan_.runs.push_back(std::move(run));
  }

  void read_call(const Line& line) {
    if (plan_.runs.empty()) line.fail("a call belongs to the run above it; there is none");
    const auto op = ops_.find(line.args[0].as_string());
    if (op == ops_.end()) line.args[0].fail("the name of an op of the graph, or of one that replaces some");
    plan_.runs.back().launches.push_back({op->second, ids(line.args[1]), ids(line.args[2]),
                                          named(kDeliveries, line.args[3], line.args[3].as_name())});
  }

  void read_stream(const Line& line) {
    Stream stream;
    stream.name = line.args[0].as_string();
    stream.kind = named(kStreamKinds, line.args[1], line.args[1].as_name());
    for (const text::Value& item : line.args[2].as_list()) {
      if (item.kind != text::Value::Kind::kCall || item.items.size() != 1)
        item.fail("launch(n), record(n), wait(n) or free(n)");
      stream.code.push_back({named(kInstructions, item, item.name), integer(item.items[0])});
    }
    plan_.streams.push_back(std::move(stream));
  }

  void read_result(const text::Value& value) {
    PlanOutput output;
    if (value.kind == text::Value::Kind::kCall && value.items.size() == 1) {
      output.kind = value.name == "slot" ? PlanOutput::Kind::kSlot : PlanOutput::Kind::kSize;
      if (value.name == "slot")
        output.slot = integer(value.items[0]);
      else if (value.name == "size")
        output.size = SizeExpr::from_text(value.items[0]);
      else
        value.fail("slot(n), size(expression) or none");
    } else if (value.kind != text::Value::Kind::kNone) {
      value.fail("slot(n), size(expression) or none");
    }
    plan_.outputs.push_back(std::move(output));
  }

  static int32_t integer(const text::Value& value) {
    if (value.as_int() < 0 || value.as_int() > INT32_MAX) value.fail("a small index");
    return static_cast<int32_t>(value.as_int());
  }
  static std::vector<int32_t> ids(const text::Value& value) {
    std::vector<int32_t> result;
    for (const text::Value& item : value.as_list())
      result.push_back(item.kind == text::Value::Kind::kNone ? kNoId : integer(item));
    return result;
  }

  ExprPool pool_;
  NamePool names_;
  MetaPool metas_;
  Plan& plan_;
  std::map<std::string, ValueId> values_;
  std::map<std::string, OpId> ops_;
};

}  // namespace

std::string print(const Plan& plan) { return print(*plan.graph) + text::print(plan_section(plan)); }

PlanPtr parse_plan(std::string_view source) {
  const text::Document document = text::parse(source);
  auto plan = std::make_shared<Plan>();
  plan->graph = std::make_shared<const Graph>(graph_from_text(document.at("graph")));
  PlanReader(*plan).read(document.at("plan"));
  check(*plan);
  return plan;
}

bool operator==(const Plan& a, const Plan& b) {
  return *a.graph == *b.graph && a.replacing == b.replacing && a.strategy == b.strategy && a.cut == b.cut &&
         a.guards == b.guards && a.streams == b.streams && a.runs == b.runs && a.slots == b.slots &&
         a.buffers == b.buffers && a.output_storage == b.output_storage && a.outputs == b.outputs &&
         a.events == b.events;
}

}  // namespace dynaflow
