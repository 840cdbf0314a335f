#include <algorithm>

#include "dynaflow/replacement.h"

namespace dynaflow {

Regions::Regions(const Partition& partition)
    : partition_(partition),
      readers_(partition.graph->values.size()),
      returned_(partition.graph->values.size(), false) {
  const Graph& graph = *partition.graph;
  for (const Segment& segment : partition.segments)
    for (OpId op : segment.ops)
      for (ValueId input : op_inputs(graph.ops[op])) readers_[storage_root(graph, input)].push_back(op);
  for (const Arg& output : graph.outputs)
    if (const auto* ref = std::get_if<ValueRef>(&output.data)) returned_[storage_root(graph, ref->id)] = true;
}

Region Regions::of(std::span<const SegmentId> segments) const {
  std::vector<OpId> ops;
  for (SegmentId segment : segments) {
    const std::vector<OpId>& own = partition_.segments[segment].ops;
    ops.insert(ops.end(), own.begin(), own.end());
  }
  std::sort(ops.begin(), ops.end());
  return of_ops(std::move(ops));
}

Region Regions::of_ops(std::vector<OpId> ops) const {
  const Graph& graph = *partition_.graph;
  Region region;
  region.ops = std::move(ops);
  const auto inside = [&](OpId op) { return std::binary_search(region.ops.begin(), region.ops.end(), op); };
  for (OpId id : region.ops) {
    for (ValueId input : op_inputs(graph.ops[id])) {
      const Value& root = graph.values[storage_root(graph, input)];
      const bool made_inside = root.origin == Origin::kOp && inside(root.op);
      const bool known = std::find(region.inputs.begin(), region.inputs.end(), input) != region.inputs.end();
      if (!made_inside && !known) region.inputs.push_back(input);
    }
    for (ValueId output : graph.ops[id].outputs) {
      const std::vector<OpId>& readers = readers_[output];  // of a root; nobody reads another as such
      if (returned_[output] || !std::all_of(readers.begin(), readers.end(), inside))
        region.outputs.push_back(output);
    }
  }
  return region;
}

std::string irreplaceable(const Graph& graph, const Region& region) {
  for (OpId id : region.ops) {
    const Op& op = graph.ops[id];
    const auto because = [&](const char* what) { return formatted("its op '{}' {}", op.name, what); };
    if (op.kind == OpKind::kCollective) return because("is a collective, whose order all ranks must share");
    if (!op.effects.writes.empty()) return because("changes a tensor in place");
    if (op.effects.random) return because("draws random numbers");
    if (op.effects.host_sync) return because("makes the host wait");
    if (op.effects.reads_context) return because("reads the state of the host system");
    for (ValueId output : op.outputs)
      if (graph.values[output].alias_of != kNoId) return because("returns the storage of its input");
  }
  return region.outputs.empty() ? "nobody reads what it makes" : "";
}

namespace {

/// Puts the region's values in the place of the numbers of inputs.
void fill(Arg& arg, const Replacement& replacement, const std::vector<ValueId>& inputs) {
  if (auto* list = std::get_if<ArgList>(&arg.data))
    for (Arg& item : *list) fill(item, replacement, inputs);
  auto* ref = std::get_if<ValueRef>(&arg.data);
  if (ref == nullptr) return;
  if (ref->id < 0 || ref->id >= static_cast<ValueId>(inputs.size()))
    throw ScheduleError(
        formatted("replacement '{}' takes input {} of {}", replacement.name, ref->id, inputs.size()));
  ref->id = inputs[ref->id];
}

std::string print_specs(const std::vector<TensorSpec>& specs) {
  std::string text;
  for (const TensorSpec& spec : specs) {
    std::string shape;
    for (const SizeExpr& size : spec.shape) shape += (shape.empty() ? "" : ", ") + size.str();
    text += formatted("{}%{} {}[{}]", text.empty() ? "" : ", ", spec.name, dtype_name(spec.dtype), shape);
  }
  return "(" + text + ")";
}

constexpr std::string_view kInput = "in";  // %in0 in a replacement's arguments

text::Value arg_text(const Arg& arg) {
  return arg_to_text(arg, [](ValueId input) { return formatted("{}{}", kInput, input); });
}

}  // namespace

Op replacing_op(const Replacement& replacement, const Region& region) {
  Op op;
  op.name = replacement.name;
  op.target = replacement.target;
  op.out_target = replacement.out_target;
  op.kind = replacement.opaque ? OpKind::kOpaque : OpKind::kCompute;
  op.args = replacement.args;
  op.outputs = region.outputs;
  for (Arg& arg : op.args) fill(arg, replacement, region.inputs);
  if (op.args.empty())
    for (ValueId input : region.inputs) op.args.push_back({ValueRef{input}});
  return op;
}

std::string print(const Signature& signature) {
  return print_specs(signature.inputs) + " -> " + print_specs(signature.outputs);
}

text::Line to_text(const Replacement& replacement) {
  text::Line line;
  line.kind = "replacement";
  line.args = {text::Value::string(replacement.name), text::Value::string(replacement.target)};
  std::vector<text::Value> args;
  for (const Arg& arg : replacement.args) args.push_back(arg_text(arg));
  if (!args.empty()) line.args.push_back(text::Value::list(std::move(args)));
  if (!replacement.out_target.empty())
    line.attrs.emplace_back("out_target", text::Value::string(replacement.out_target));
  if (replacement.opaque) line.attrs.emplace_back("opaque", text::Value::boolean(true));
  if (replacement.tolerance != 0)
    line.attrs.emplace_back("tolerance", text::Value::floating(replacement.tolerance));
  return line;
}

Arg replacement_arg(const text::Value& value) {
  NamePool names;
  const auto input = [](const text::Value& ref) -> ValueId {
    const std::string& name = ref.as_ref();
    const bool digits = name.size() > kInput.size() && name.size() < kInput.size() + 5 &&
                        name.find_first_not_of("0123456789", kInput.size()) == std::string::npos;
    if (!name.starts_with(kInput) || !digits) ref.fail("an input: %in0, %in1, ...");
    return std::stoi(name.substr(kInput.size()));
  };
  return arg_from_text(value, input, names);
}

Replacement replacement_from_text(const text::Line& line) {
  if (line.args.size() < 2 || line.args.size() > 3)
    line.fail("expected replacement(\"name\", \"target\", [arguments])");
  Replacement replacement;
  replacement.name = line.args[0].as_string();
  replacement.target = line.args[1].as_string();
  if (line.args.size() == 3)
    for (const text::Value& arg : line.args[2].as_list()) replacement.args.push_back(replacement_arg(arg));
  if (const text::Value* target = line.find("out_target")) replacement.out_target = target->as_string();
  if (const text::Value* opaque = line.find("opaque")) replacement.opaque = opaque->as_bool();
  if (const text::Value* tolerance = line.find("tolerance")) replacement.tolerance = tolerance->as_float();
  if (!(replacement.tolerance >= 0)) line.fail("a tolerance is not negative");
  return replacement;
}

}  // namespace dynaflow
