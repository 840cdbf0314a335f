#include "torch/frame.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/SmallVector.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "torch/memory_log.h"

namespace dynaflow {
namespace {

constexpr size_t kUsualDims = 8;
constexpr int64_t kByteStride = 1;
const std::string kArenaLabel = "arena";
const std::string kOutputLabel = "output";

/// A tensor over `storage`. Whether it is an inference tensor is the calling thread's affair.
at::Tensor tensor_over(c10::Storage storage, c10::ScalarType dtype) {
  const c10::DispatchKey key = c10::computeDispatchKey(dtype, c10::Layout::Strided, storage.device());
  return at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(key),
                                                  c10::scalarTypeToTypeMeta(dtype));
}

c10::Storage allocate(c10::Device device, int64_t bytes, bool resizable) {
  c10::Allocator* allocator = c10::GetAllocator(device.type());
  const auto size = static_cast<size_t>(bytes);
  return c10::Storage(c10::Storage::use_byte_size_t(), size, allocator->allocate(size), allocator, resizable);
}

}  // namespace

LaunchCounters& LaunchCounters::operator+=(const LaunchCounters& other) {
  launches += other.launches;
  fresh_results += other.fresh_results;
  copied_bytes += other.copied_bytes;
  kernel_ns += other.kernel_ns;
  timed += other.timed;
  step_ns += other.step_ns;
  caller_ns += other.caller_ns;
  caller_timed += other.caller_timed;
  arena_bytes += other.arena_bytes;
  return *this;
}

TorchFrame::TorchFrame(std::shared_ptr<const Prepared> prepared)
    : prepared_(std::move(prepared)),
      slots_(prepared_->slots.size()),
      bound_(prepared_->bound.size()),
      lanes_(prepared_->plan->streams.size()),
      seen_(prepared_->externals.size()) {}

TorchFrame::~TorchFrame() = default;

void TorchFrame::set_run(std::vector<at::Tensor> arguments, std::shared_ptr<TraceRecorder> recorder,
                         bool measured, int64_t step) {
  step_ = step;
  entered_ = all_parts();
  arguments_ = std::move(arguments);
  recorder_ = std::move(recorder);
  measured_ = measured;
  begun_ = false;
}

bool TorchFrame::stopped_short() const { return begun_ && collectives_issued_ < prepared_->collectives; }

LaunchCounters TorchFrame::take_counters() {
  LaunchCounters sum;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    LaunchCounters lane = std::exchange(lanes_[i].counters, {});
    if (prepared_->plan->streams[i].kind != StreamKind::kThread) {
      lane.caller_ns = lane.kernel_ns;
      lane.caller_timed = lane.timed;
    }
    sum += lane;
  }
  return sum;
}

void TorchFrame::begin(const Binding& binding, bool changed) {
  begun_ = false;
  outputs_.clear();
  sizes_.clear();
  collectives_issued_ = 0;
  registers_ = &binding.registers;
  binding_ = &binding;
  if (arguments_.size() < prepared_->arguments) {
    throw ExecutionError(formatted("the plan takes {} tensor arguments, {} were given", prepared_->arguments,
                                   arguments_.size()));
  }
  if (!device_) make_tensors();
  const c10::DeviceGuard guard(*device_);
  changed = changed || stale_;
  stale_ = changed;  // until this begin() has succeeded
  for (size_t i = 0; i < prepared_->externals.size(); ++i) bind_external(i, changed);
  if (binding.arena_bytes > arena_bytes_) grow_arena(binding.arena_bytes);
  if (changed) bind_changed_sizes();
  bind_outputs(changed);
  if (prepared_->threads) caller_state_.emplace();
  stale_ = false;
  begun_ = true;
}

/// The device is where the arguments are: on an accelerator if any of them is.
void TorchFrame::make_tensors() {
  c10::Device device(c10::kCPU);
  for (const at::Tensor& argument : arguments_) {
    if (argument.defined() && !argument.is_cpu()) {
      device = argument.device();
      break;
    }
  }
  const c10::DeviceGuard guard(device);
  const c10::InferenceMode normal(false);  // they outlive the caller's mode
  empty_ = allocate(device, 0, false);
  arena_ = allocate(device, 0, false);
  for (size_t i = 0; i < slots_.size(); ++i) {
    const PreparedSlot& slot = prepared_->slots[i];
    slots_[i] = tensor_over(slot.root == Root::kArena ? arena_ : empty_, slot.dtype);
  }
  for (const SlotId id : prepared_->kernel_slots) slot(id).reset();
  device_ = device;
}

/// Tensors of the arena share one storage, so only its bytes are replaced. Nothing in it outlives a run.
void TorchFrame::grow_arena(int64_t bytes) {
  const MemoryLog::Label label(kArenaLabel);
  arena_.set_data_ptr_noswap(c10::DataPtr(nullptr, *device_));
  arena_.set_data_ptr_noswap(c10::GetAllocator(device_->type())->allocate(static_cast<size_t>(bytes)));
  arena_.set_nbytes(static_cast<size_t>(bytes));
  lanes_.front().counters.arena_bytes += bytes - arena_bytes_;
  arena_bytes_ = bytes;
}

void TorchFrame::bind_sizes(SlotId id, int64_t offset) {
  const ShapeRegisters& shape = shape_of(id).shape;
  c10::SmallVector<int64_t, kUsualDims> sizes;
  c10::SmallVector<int64_t, kUsualDims> strides;
  for (const int reg : shape.sizes) sizes.push_back(value(reg));
  for (const int reg : shape.strides) strides.push_back(value(reg));
  slot(id).unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides, offset);
}

void TorchFrame::set_storage(SlotId id, const c10::Storage& storage) {
  slot(id).unsafeGetTensorImpl()->set_storage_keep_dtype(storage);
}

void TorchFrame::bind_changed_sizes() {
  for (const SlotId id : prepared_->arena_slots) {
    const PreparedSlot& slot = shape_of(id);
    const int64_t item = static_cast<int64_t>(c10::elementSize(slot.dtype));
    const int64_t start = binding_->buffer_offsets[static_cast<size_t>(slot.index)];
    bind_sizes(id, start / item + value(slot.shape.offset));
  }
  for (const SlotId root : prepared_->kernel_slots) {
    for (const SlotId id : prepared_->kernel_views[static_cast<size_t>(root)]) bind_sizes(id, 0);
  }
  const c10::InferenceMode normal(false);
  for (size_t i = 0; i < bound_.size(); ++i) bound_[i] = bind_value(prepared_->bound[i], *registers_);
}

void TorchFrame::bind_external(size_t index, bool changed) {
  const External& external = prepared_->externals[index];
  const auto at = static_cast<size_t>(external.index);
  const at::Tensor& tensor = external.constant ? prepared_->constants[at] : arguments_[at];
  Seen& seen = seen_[index];
  check_external(external, tensor);  // sizes and strides may change where storage does not
  if (!changed && external.persistent && seen.tensor.is_same(tensor) &&
      seen.storage.is_alias_of(tensor.unsafeGetTensorImpl()->unsafe_storage())) {
    return;
  }
  for (const SlotId id : external.whole) slot(id) = tensor;
  const auto item = static_cast<int64_t>(c10::elementSize(external.dtype));
  for (const SlotId id : external.views) {
    const PreparedSlot& view = shape_of(id);
    const auto view_item = static_cast<int64_t>(c10::elementSize(view.dtype));
    const int64_t first = (tensor.storage_offset() - value(external.shape.offset)) * item / view_item;
    set_storage(id, tensor.storage());
    bind_sizes(id, first + value(view.shape.offset));
  }
  if (external.persistent) seen = {tensor, tensor.storage()};
}

void TorchFrame::check_external(const External& external, const at::Tensor& tensor) const {
  const auto fail = [&](const std::string& found, const std::string& expected) {
    const std::string message =
        formatted("{} {} ('{}') {}; the plan was made for {}", external.constant ? "constant" : "argument",
                  external.index, external.name, found, expected);
    if (external.persistent || external.constant) throw ParameterError(message);
    throw ExecutionError(message);
  };
  const auto list = [this](const std::vector<int>& registers) {
    std::vector<int64_t> values;
    for (const int reg : registers) values.push_back(value(reg));
    return values;
  };
  if (!tensor.defined()) fail("is None", "a tensor");
  if (tensor.layout() != c10::Layout::Strided || tensor.is_conj() || tensor.is_neg() ||
      tensor.unsafeGetTensorImpl()->key_set().has(c10::DispatchKey::Python)) {
    fail("is a tensor subclass, or not strided", "a plain tensor");
  }
  if (tensor.scalar_type() != external.dtype) {
    fail(formatted("is {}", c10::toString(tensor.scalar_type())), c10::toString(external.dtype));
  }
  if (tensor.dim() > 0 && tensor.device() != *device_) fail("is on " + tensor.device().str(), device_->str());
  const std::vector<int>& sizes = external.shape.sizes;
  bool same_size = static_cast<size_t>(tensor.dim()) == sizes.size();
  bool same_strides = true;
  for (size_t d = 0; same_size && d < sizes.size(); ++d) {
    const auto dim = static_cast<int64_t>(d);
    same_size = tensor.size(dim) == value(sizes[d]);
    // A stride that is never stepped along says nothing.
    same_strides =
        same_strides && (tensor.size(dim) <= 1 || tensor.stride(dim) == value(external.shape.strides[d]));
  }
  if (!same_size) {
    fail(formatted("has shape [{}]", fmt::join(tensor.sizes(), ", ")),
         formatted("[{}]", fmt::join(list(sizes), ", ")));
  }
  if (!same_strides && tensor.numel() > 0) {
    fail(formatted("has strides [{}]", fmt::join(tensor.strides(), ", ")),
         formatted("[{}]: pass it contiguous, as at capture", fmt::join(list(external.shape.strides), ", ")));
  }
}

void TorchFrame::bind_outputs(bool changed) {
  const MemoryLog::Label label(kOutputLabel);
  c10::SmallVector<c10::Storage, kUsualDims> storages;
  for (size_t i = 0; i < prepared_->output_elements.size(); ++i) {
    const int64_t bytes =
        value(prepared_->output_elements[i]) * item_size(prepared_->plan->output_storage[i].dtype);
    storages.push_back(allocate(*device_, bytes, true));
  }
  for (const SlotId id : prepared_->output_slots) {
    const PreparedSlot& slot = shape_of(id);
    set_storage(id, storages[static_cast<size_t>(slot.index)]);
    if (changed) bind_sizes(id, value(slot.shape.offset));
  }
}

/// What the caller gets for a slot: never the slot's own tensor where later runs bind that anew.
at::Tensor TorchFrame::output_tensor(SlotId id) {
  const at::Tensor& tensor = slot(id);
  const PreparedSlot& prepared = shape_of(id);
  if (!tensor.defined() || (prepared.root == Root::kKernel && prepared.index == id)) return tensor;
  if (prepared.root == Root::kArgument || prepared.root == Root::kConstant) {
    const auto at = static_cast<size_t>(prepared.index);
    const at::Tensor& base = prepared.root == Root::kArgument ? arguments_[at] : prepared_->constants[at];
    if (tensor.is_same(base)) return base;
    // A view that shares the argument's version counter, as eager returns.
    if (base.scalar_type() == prepared.dtype) {
      return base.as_strided(tensor.sizes(), tensor.strides(), tensor.storage_offset());
    }
  }
  at::Tensor output = tensor_over(tensor.storage(), prepared.dtype);
  output.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(),
                                                      tensor.storage_offset());
  return output;
}

void TorchFrame::collect_outputs() {
  for (const PlanOutput& output : prepared_->plan->outputs) {
    if (output.kind == PlanOutput::Kind::kSlot) outputs_.push_back(output_tensor(output.slot));
  }
  for (const int reg : prepared_->size_outputs) sizes_.push_back(value(reg));
}

void TorchFrame::end() {
  if (begun_) collect_outputs();
  release();
  if (prepared_->enter_context) enter_context(all_parts());
}

/// The host has the whole batch's state before a step, and again after it.
void TorchFrame::enter_context(PartRange parts) {
  if (entered_ == parts) return;
  entered_ = parts;
  torch::jit::Stack stack{step_, int64_t{parts.first}, int64_t{parts.second}};
  prepared_->enter_context->callBoxed(stack);
}

/// Parameters stay bound: the next run brings the same ones.
void TorchFrame::release() {
  for (const External& external : prepared_->externals) {
    const auto at = static_cast<size_t>(external.index);
    if (external.written && begun_ && !external.constant && !arguments_[at].is_inference()) {
      arguments_[at].unsafeGetTensorImpl()->bump_version();
    }
    if (external.persistent || !device_) continue;
    for (const SlotId id : external.whole) slot(id).reset();
    for (const SlotId id : external.views) set_storage(id, empty_);
  }
  if (device_) {
    for (const SlotId id : prepared_->kernel_slots) {
      if (slot(id).defined()) free(id);
    }
    for (const SlotId id : prepared_->output_slots) set_storage(id, empty_);
  }
  arguments_.clear();
  caller_state_.reset();
}

void TorchFrame::free(SlotId id) {
  slot(id).reset();
  for (const SlotId view : prepared_->kernel_views[static_cast<size_t>(id)]) set_storage(view, empty_);
}

void TorchFrame::poison() {
  if (arena_bytes_ == 0) return;
  at::Tensor bytes = tensor_over(arena_, c10::ScalarType::Byte);
  bytes.unsafeGetTensorImpl()->set_sizes_and_strides(c10::IntArrayRef(arena_bytes_),
                                                     c10::IntArrayRef(kByteStride), 0);
  bytes.fill_(0xFF);
}

void TorchFrame::with_caller_state(const std::function<void()>& body) {
  DF_CHECK(caller_state_, "only streams with a thread of their own need the caller's state");
  const at::ThreadLocalStateGuard state(*caller_state_);
  body();
}

}  // namespace dynaflow
