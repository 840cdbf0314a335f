#include "executor_plans.h"

#include <algorithm>
#include <cstring>

namespace dynaflow::test {

PlanBuilder::PlanBuilder() {
  graph_->name = "by_hand";
  graph_->tokens = 1;
}

StreamId PlanBuilder::stream(const std::string& name, StreamKind kind) {
  plan_->streams.push_back({name, kind, {}});
  return static_cast<StreamId>(plan_->streams.size()) - 1;
}

SlotId PlanBuilder::add_slot(Root root, int32_t index, const std::string& name, Origin origin) {
  Value value;
  value.name = name;
  value.meta = TensorMeta{DType::kFloat32, {4, 8}, {8, 1}, 0};
  value.origin = origin;
  value.index = origin == Origin::kOp ? 0 : index;
  value.op = origin == Origin::kOp ? static_cast<OpId>(graph_->ops.size()) : kNoId;
  graph_->values.push_back(value);
  Slot slot;
  slot.value = static_cast<ValueId>(graph_->values.size()) - 1;
  slot.root = root;
  slot.index = index;
  slot.meta = value.meta;
  plan_->slots.push_back(slot);
  producer_.push_back(kNoId);
  return slot.value;
}

SlotId PlanBuilder::argument() {
  const int32_t index = arguments_++;
  return add_slot(Root::kArgument, index, formatted("x{}", index), Origin::kInput);
}

SlotId PlanBuilder::run(StreamId stream, const std::string& target, const std::vector<SlotId>& inputs,
                        bool fresh) {
  const auto id = static_cast<RunId>(plan_->runs.size());
  const auto next_slot = static_cast<SlotId>(plan_->slots.size());
  const auto storage = static_cast<int32_t>(plan_->output_storage.size());
  const SlotId slot = fresh ? add_slot(Root::kKernel, next_slot, formatted("v{}", id), Origin::kOp)
                            : add_slot(Root::kOutput, storage, formatted("v{}", id), Origin::kOp);
  producer_[slot] = id;
  Op op;
  op.name = formatted("v{}", id);
  op.target = target;
  op.kind = target.starts_with("_c10d") ? OpKind::kCollective : OpKind::kCompute;
  op.group = op.kind == OpKind::kCollective ? "0" : "";
  for (SlotId input : inputs) op.args.push_back({ValueRef{plan_->slots[input].value}});
  op.outputs = {plan_->slots[slot].value};
  graph_->ops.push_back(op);
  if (!fresh) plan_->output_storage.push_back({DType::kFloat32, 32});
  if (!fresh) plan_->outputs.push_back({PlanOutput::Kind::kSlot, slot, 0});
  std::vector<Instruction>& code = plan_->streams[stream].code;
  for (SlotId input : inputs) {
    const RunId need = producer_[input];
    if (need == kNoId || plan_->runs[need].stream == stream) continue;
    if (event_of_[need] == kNoId) {
      event_of_[need] = plan_->events++;
      std::vector<Instruction>& source = plan_->streams[plan_->runs[need].stream].code;
      const auto at = std::find(source.begin(), source.end(), Instruction{Instruction::Kind::kLaunch, need});
      source.insert(at + 1, {Instruction::Kind::kRecord, event_of_[need]});
    }
    code.push_back({Instruction::Kind::kWait, event_of_[need]});
  }
  code.push_back({Instruction::Kind::kLaunch, id});
  event_of_.push_back(kNoId);
  const OpLaunch launch{
      static_cast<OpId>(graph_->ops.size()) - 1, inputs, {slot}, fresh ? Delivery::kFresh : Delivery::kOut};
  plan_->runs.push_back({{0}, op.name, 0, 1, stream, {launch}});
  return slot;
}

void PlanBuilder::free(StreamId stream, SlotId slot) {
  plan_->streams[stream].code.push_back({Instruction::Kind::kFree, slot});
}

PlanPtr PlanBuilder::finish() {
  plan_->graph = graph_;
  return plan_;
}

namespace {

constexpr const char* kPrelude = R"(graph: random {batch=s0, tokens=s0}
  %s0 = symbol() {min=1, hint=12, input=0}
  %x = input(0, tensor(float32, [s0, 8]))
  %w = parameter(1, tensor(float32, [8, 8]))
)";

/// Ops over earlier values; what nobody reads is an output. relu is left out: it hides what is below zero.
std::string random_graph(std::mt19937_64& random, int ops) {
  std::string text = kPrelude;
  std::vector<std::string> values = {"%x"};
  std::vector<bool> read = {true};
  const auto pick = [&] {
    const size_t recent = std::min<size_t>(values.size(), 5);
    const size_t index = values.size() - 1 - random() % recent;
    read[index] = true;
    return values[index];
  };
  for (int i = 0; i < ops; ++i) {
    const std::string out = formatted("%v{}", i);
    const std::string meta = "out=[tensor(float32, [s0, 8])]";
    const std::string a = pick();
    switch (i == 0 ? 0 : random() % 6) {
      case 0:
        text +=
            formatted("  {} = aten.mm.default({}, %w) {{{}, out_target=\"aten.mm.out\"}}\n", out, a, meta);
        break;
      case 1:
      case 2: {
        const std::string b = pick();
        text += formatted("  {} = aten.add.Tensor({}, {}, 1) {{{}, out_target=\"aten.add.out\"}}\n", out, a,
                          b, meta);
        break;
      }
      case 3:
        text += formatted("  {} = aten.clone.default({}, none) {{{}}}\n", out, a, meta);
        break;
      default:
        text += formatted(
            "  {} = _c10d_functional.all_reduce.default({}, \"sum\", \"0\") {{{}, kind=collective, "
            "group=\"0\"}}\n",
            out, a, meta);
    }
    values.push_back(out);
    read.push_back(false);
  }
  std::string outputs;
  for (size_t i = 0; i < values.size(); ++i)
    if (!read[i]) outputs += (outputs.empty() ? "" : ", ") + values[i];
  return text + "  output(" + outputs + ")\n";
}

/// Launches an op with one that follows it; a matmul with a sum as one kernel, where nobody else reads it.
void execute_with_next(Scheduler& scheduler, const ReadyOp& op, const std::string& stream,
                       std::mt19937_64& random) {
  std::vector<ReadyOp> ops = {op};
  for (const ReadyOp& next : scheduler.next_ops(ops))
    if (ops.size() == 1 && next.first_part() == op.first_part() && next.last_part() == op.last_part())
      ops.push_back(next);
  ExecuteOptions options{.stream = stream, .after = {}, .replacement = {}};
  const bool sum = ops.size() == 2 && op.name().starts_with("mm") && ops[1].name().starts_with("add");
  const Signature signature = sum ? scheduler.signature(ops) : Signature();
  if (signature.inputs.size() == 3 && signature.outputs.size() == 1 && random() % 4 > 0)
    options.replacement = Replacement{.name = "mm_add",
                                      .target = "test.mm_add.default",
                                      .out_target = random() % 2 == 0 ? "test.mm_add.out" : "",
                                      .args = {}};
  scheduler.execute(ops, options);
}

}  // namespace

PlanPtr make_random_plan(const RandomPlan& options) {
  std::mt19937_64 random(options.seed);
  const auto graph = std::make_shared<Graph>(parse_graph(random_graph(random, options.ops)));
  const PartitionPtr parts =
      partition(graph, {split_func({"mm|add|clone"}), split_func({"all_reduce"}, {"network"})});
  Scheduler scheduler(parts, "random", [](std::string_view) -> int64_t { return 12; });
  if (options.parts > 1) scheduler.split(options.parts);
  bool first = true;
  for (auto ops = scheduler.get_ready_ops(); !ops.empty(); ops = scheduler.get_ready_ops()) {
    const ReadyOp op = ops[random() % ops.size()];
    std::string stream = options.side && !first && random() % 2 == 0 ? "side" : "compute";
    if (op.has_tag("network")) stream = options.network ? "network" : "compute";
    if (options.fuse && (op.name().starts_with("mm") || random() % 2 == 0)) {
      execute_with_next(scheduler, op, stream, random);
    } else {
      scheduler.execute(op, {.stream = stream, .after = {}});
    }
    first = false;
  }
  return lower(*scheduler.finish());
}

Engine::Engine(PlanPtr plan_, TestKernelOptions options) : plan(std::move(plan_)) {
  const auto binder = std::make_shared<Binder>(plan);
  kernels = make_test_kernels(plan, *binder, std::move(options));
  executor = std::make_unique<Executor>(plan, binder, kernels, make_cpu_device());
}

std::vector<TestTensor> Engine::run_tensors(int64_t batch, uint64_t input_seed, const RunOptions& options) {
  std::mt19937_64 random(input_seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<TestTensor> arguments;
  for (const Value& value : plan->graph->values) {
    if (value.origin == Origin::kOp) continue;
    const bool weight = value.origin == Origin::kParameter;
    const int64_t rows = weight ? 8 : batch;
    std::vector<float> elements(static_cast<size_t>(rows * 8));
    for (float& element : elements) element = uniform(random) * (weight ? 0.4F : 1.0F);
    arguments.push_back(TestTensor::dense({rows, 8}, std::move(elements)));
  }
  Executor::Lease frame = executor->acquire();
  auto& tensors = static_cast<TestKernelFrame&>(frame->kernels());
  tensors.set_arguments(std::move(arguments));
  const std::vector<int64_t> symbols(plan->graph->symbols.size(), batch);
  executor->run(*frame, symbols, options);
  return tensors.take_outputs();
}

std::vector<std::vector<float>> Engine::run(int64_t batch, uint64_t input_seed, const RunOptions& options) {
  std::vector<std::vector<float>> values;
  for (const TestTensor& tensor : run_tensors(batch, input_seed, options)) values.push_back(tensor.values());
  return values;
}

bool same_bits(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].size() != b[i].size()) return false;
    if (!a[i].empty() && std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(float)) != 0)
      return false;
  }
  return true;
}

}  // namespace dynaflow::test
