#include "kernels/test/test_frame.h"

namespace dynaflow::test {

namespace {

std::shared_ptr<std::vector<float>> allocate(int64_t elements) {
  auto memory = std::make_shared<std::vector<float>>(static_cast<size_t>(elements));
  fill_nan(*memory);
  return memory;
}

/// Several started collectives as one.
class Both final : public Completion {
 public:
  Both(std::shared_ptr<Completion> first, std::shared_ptr<Completion> second)
      : first_(std::move(first)), second_(std::move(second)) {}
  bool done() const override { return first_->done() && second_->done(); }
  void wait() override {
    // The second runs after the first, so that both have ended even when the first throws.
    std::exception_ptr error;
    try {
      first_->wait();
    } catch (...) {
      error = std::current_exception();
    }
    second_->wait();
    if (error) std::rethrow_exception(error);
  }

 private:
  std::shared_ptr<Completion> first_;
  std::shared_ptr<Completion> second_;
};

}  // namespace

TestFrame::TestFrame(std::shared_ptr<Shared> shared)
    : shared_(std::move(shared)), made_(shared_->plan->slots.size()) {}

void TestFrame::begin(const Binding& binding, bool /*changed*/) {
  binding_ = &binding;
  results_.clear();
  const auto floats = static_cast<size_t>((binding.arena_bytes + 3) / 4);
  if (arena_.size() < floats) {
    arena_.resize(floats);
    poison();
  }
  for (int elements : shared_->outputs) outputs_.push_back(allocate(binding.registers[elements]));
}

float* TestFrame::base(const Slot& slot) const {
  const auto index = static_cast<size_t>(slot.index);
  const auto from = [&](const std::vector<TestTensor>& tensors, const char* what) {
    if (index >= tensors.size() || !tensors[index].storage)
      throw PlanError(formatted("{} {} was not given", what, index));
    return tensors[index].storage->data() + tensors[index].offset;
  };
  switch (slot.root) {
    case Root::kArena:
      return const_cast<float*>(arena_.data()) + binding_->buffer_offsets[index] / 4;
    case Root::kArgument:
      return from(arguments_, "argument");
    case Root::kConstant:
      return from(shared_->options.constants, "constant");
    case Root::kOutput:
      return outputs_.at(index)->data();
    case Root::kKernel:
      break;
  }
  DF_CHECK(made_[index] != nullptr, "slot {} is read before it is made, or after it was freed", index);
  return made_[index]->data();
}

View TestFrame::shape_of(SlotId id) const {
  const SlotRegisters& registers = shared_->slots[id];
  View view;
  for (int size : registers.sizes) view.sizes.push_back(binding_->registers[size]);
  for (int stride : registers.strides) view.strides.push_back(binding_->registers[stride]);
  return view;
}

View TestFrame::view(SlotId id) const {
  View view = shape_of(id);
  view.data = base(shared_->plan->slots[id]) + binding_->registers[shared_->slots[id].offset];
  return view;
}

View TestFrame::make_fresh(SlotId id) {
  DF_CHECK(shared_->plan->slots[id].index == id, "slot {} is a view and cannot be made", id);
  if (!made_[id]) ++shared_->live;
  made_[id] = allocate(shape_of(id).span() + binding_->registers[shared_->slots[id].offset]);
  return view(id);
}

std::shared_ptr<Completion> TestFrame::launch(RunId run) {
  RunId expected = run;
  bool fail = shared_->failing.compare_exchange_strong(expected, kNoId);
  std::shared_ptr<Completion> running;
  for (const PreparedOp& op : shared_->runs[run]) {
    if (op.kernel && fail) throw std::runtime_error("the kernel was told to fail");
    if (op.kernel && running)
      std::exchange(running, nullptr)->wait();  // it may read what the collective writes
    std::shared_ptr<Completion> work = launch_op(op, std::exchange(fail, false));
    if (work)
      running = running ? std::make_shared<Both>(std::move(running), std::move(work)) : std::move(work);
  }
  return running;
}

std::shared_ptr<Completion> TestFrame::launch_op(const PreparedOp& op, bool fail) {
  std::vector<View> inputs;
  for (SlotId input : op.launch->inputs) inputs.push_back(view(input));
  const SlotId slot = op.launch->outputs[0];
  if (slot == kNoId) return nullptr;
  const View out = op.launch->delivery == Delivery::kFresh ? make_fresh(slot) : view(slot);
  const int64_t delay = op.kernel ? 0 : shared_->next_delay();
  if (!op.kernel)
    return shared_->worker.submit(
        {out, inputs.at(0), static_cast<float>(shared_->options.world_size), delay, fail});
  OpParams params = op.params;
  params.delay_us =
      shared_->plan->op(op.launch->op).target == "test.slow.default" ? shared_->next_delay() : 0;
  op.kernel(out, inputs, params);
  return nullptr;
}

void TestFrame::free(SlotId slot) {
  DF_CHECK(made_[slot] != nullptr, "slot {} is freed twice or was never made", slot);
  fill_nan(*made_[slot]);
  --shared_->live;
  const std::lock_guard lock(freed_mutex_);
  freed_.push_back(std::move(made_[slot]));
}

TestTensor TestFrame::result(const PlanOutput& output, int size_register) const {
  if (output.kind == PlanOutput::Kind::kNone) return {};
  if (output.kind == PlanOutput::Kind::kSize)
    return TestTensor::dense({}, {static_cast<float>(binding_->registers[size_register])});
  const Slot& slot = shared_->plan->slots[output.slot];
  const auto index = static_cast<size_t>(slot.index);
  const View shape = shape_of(output.slot);
  TestTensor tensor{nullptr, shape.sizes, shape.strides,
                    binding_->registers[shared_->slots[output.slot].offset]};
  // A run that failed lacks some of these: then the tensor stays empty.
  const auto take = [&](const std::vector<TestTensor>& tensors) {
    if (index >= tensors.size()) return;
    tensor.storage = tensors[index].storage;
    tensor.offset += tensors[index].offset;
  };
  if (slot.root == Root::kKernel) tensor.storage = made_[index];
  if (slot.root == Root::kOutput && index < outputs_.size()) tensor.storage = outputs_[index];
  if (slot.root == Root::kArgument) take(arguments_);
  if (slot.root == Root::kConstant) take(shared_->options.constants);
  return tensor;
}

void TestFrame::end() {
  const Plan& plan = *shared_->plan;
  if (binding_ != nullptr)  // else the run never began
    for (size_t i = 0; i < plan.outputs.size(); ++i)
      results_.push_back(result(plan.outputs[i], shared_->output_sizes[i]));
  binding_ = nullptr;
  for (Memory& memory : made_)
    if (memory) --shared_->live;
  made_.assign(made_.size(), nullptr);
  freed_.clear();
  outputs_.clear();
  arguments_.clear();
}

}  // namespace dynaflow::test
