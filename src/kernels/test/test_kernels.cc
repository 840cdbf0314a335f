#include "dynaflow/test_kernels.h"

#include <atomic>

#include "kernels/test/test_frame.h"

namespace dynaflow {

namespace test {

namespace {

int64_t integer(const Arg& arg) {
  const auto* size = std::get_if<SizeExpr>(&arg.data);
  if (size == nullptr || !size->constant()) throw PlanError("a test kernel needs constant integers");
  return *size->constant();
}

/// What computes an op's result, in place or not.
const std::string& kernel_target(const Op& op) { return op.functional.empty() ? op.target : op.functional; }

OpParams read_params(const Op& op) {
  OpParams params;
  if (kernel_target(op) == "aten.add.Tensor" && op.args.size() > 2) {
    const auto* real = std::get_if<double>(&op.args[2].data);
    params.scale = real != nullptr ? *real : static_cast<double>(integer(op.args[2]));
  }
  if (op.target == "aten.sum.dim_IntList" && op.args.size() > 1)
    if (const auto* dims = std::get_if<ArgList>(&op.args[1].data))
      for (const Arg& dim : *dims) params.dims.push_back(integer(dim));
  return params;
}

void check_slot(const Plan& plan, SlotId id) {
  if (id == kNoId) return;
  const Value& value = plan.graph->values[plan.slots[id].value];
  if (value.meta->dtype != DType::kFloat32)
    throw PlanError(formatted("test kernels compute in float32, but %{} is {}", value.name,
                              dtype_name(value.meta->dtype)));
}

PreparedOp prepare(const Plan& plan, const OpLaunch& launch) {
  const Op& op = plan.op(launch.op);
  PreparedOp prepared{&launch, find_kernel(kernel_target(op)), read_params(op)};
  if (!prepared.kernel && op.target != "_c10d_functional.all_reduce.default")
    throw PlanError(formatted("no test kernel for {}; known: {}", op.target, kernel_names()));
  if (launch.outputs.size() != 1) throw PlanError(formatted("{} has one output in tests", op.target));
  for (SlotId id : launch.inputs) check_slot(plan, id);
  check_slot(plan, launch.outputs[0]);
  return prepared;
}

}  // namespace

Shared::Shared(PlanPtr plan_, Binder& binder, TestKernelOptions options_)
    : plan(std::move(plan_)), options(std::move(options_)) {
  for (const Run& run : plan->runs) {
    runs.emplace_back();
    for (const OpLaunch& launch : run.launches) runs.back().push_back(prepare(*plan, launch));
  }
  for (const Slot& slot : plan->slots) {
    SlotRegisters registers;
    for (const SizeExpr& size : slot.meta->shape) registers.sizes.push_back(binder.reg(size));
    for (const SizeExpr& stride : slot.meta->strides) registers.strides.push_back(binder.reg(stride));
    registers.offset = binder.reg(slot.meta->offset);
    slots.push_back(std::move(registers));
  }
  for (const OutputStorage& output : plan->output_storage) outputs.push_back(binder.reg(output.elements));
  for (const PlanOutput& output : plan->outputs)
    output_sizes.push_back(output.kind == PlanOutput::Kind::kSize ? binder.reg(output.size) : kNoId);
}

int64_t Shared::next_delay() {
  const int64_t range = options.max_delay_us - options.min_delay_us;
  if (range <= 0) return options.min_delay_us;
  // splitmix64 of a counter: threads need no common generator.
  uint64_t x = options.seed + 0x9e3779b97f4a7c15ULL * (1 + delays.fetch_add(1));
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return options.min_delay_us + static_cast<int64_t>((x ^ (x >> 31)) % static_cast<uint64_t>(range + 1));
}

namespace {

class Provider final : public TestKernels {
 public:
  Provider(PlanPtr plan, Binder& binder, TestKernelOptions options)
      : shared_(std::make_shared<Shared>(std::move(plan), binder, std::move(options))) {}
  std::unique_ptr<KernelFrame> make_frame() override { return std::make_unique<TestFrame>(shared_); }
  int64_t live_tensors() const override { return shared_->live.load(); }
  void fail_next(RunId run) override { shared_->failing.store(run); }

 private:
  std::shared_ptr<Shared> shared_;
};

}  // namespace

}  // namespace test

std::shared_ptr<TestKernels> make_test_kernels(PlanPtr plan, Binder& binder, TestKernelOptions options) {
  return std::make_shared<test::Provider>(std::move(plan), binder, std::move(options));
}

TestTensor TestTensor::dense(std::vector<int64_t> sizes, std::vector<float> values) {
  TestTensor tensor{nullptr, std::move(sizes), {}, 0};
  tensor.strides.assign(tensor.sizes.size(), 1);
  for (size_t i = tensor.sizes.size(); i-- > 1;) tensor.strides[i - 1] = tensor.strides[i] * tensor.sizes[i];
  int64_t count = 1;
  for (int64_t size : tensor.sizes) count *= size;
  if (count != static_cast<int64_t>(values.size()))
    throw GraphError(formatted("{} values given for {} elements", values.size(), count));
  tensor.storage = std::make_shared<std::vector<float>>(std::move(values));
  return tensor;
}

std::vector<float> TestTensor::values() const {
  if (!storage) return {};
  const test::View view{storage->data() + offset, sizes, strides};
  std::vector<float> result(static_cast<size_t>(view.count()));
  for (size_t i = 0; i < result.size(); ++i) result[i] = view.at(static_cast<int64_t>(i));
  return result;
}

}  // namespace dynaflow
