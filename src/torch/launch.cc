#include <ATen/ops/empty_strided.h>
#include <ATen/record_function.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/SmallVector.h>
#include <fmt/ranges.h>
#include <time.h>

#include "torch/launch.h"

#include "torch/errors.h"
#include "torch/frame.h"
#include "torch/memory_log.h"

namespace dynaflow {

int64_t thread_cpu_ns() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return int64_t{1'000'000'000} * time.tv_sec + time.tv_nsec;
}

int64_t clock_reading_ns() {
  constexpr int kReadings = 2000;
  const int64_t start = thread_cpu_ns();
  int64_t last = start;
  for (int i = 0; i < kReadings; ++i) last = thread_cpu_ns();
  return (last - start) / kReadings;
}

namespace {

#ifdef DYNAFLOW_DEBUG_CHECKS
/// A kernel that does not like its out argument resizes it, which detaches the slot from its bytes.
class OutCheck {
 public:
  OutCheck(const PreparedLaunch& launch, const std::vector<at::Tensor>& slots) {
    if (!is_told(launch.delivery)) return;
    for (const SlotId id : launch.outputs) {
      if (id == kNoId) continue;
      const at::Tensor& tensor = slots[static_cast<size_t>(id)];
      before_.push_back({tensor, tensor.data_ptr(), tensor.sizes().vec()});
    }
  }
  void finish() const {
    for (const Entry& entry : before_) {
      DF_CHECK(entry.tensor.data_ptr() == entry.data && entry.tensor.sizes() == c10::IntArrayRef(entry.sizes),
               "An out= kernel made [{}] of its slot's [{}]", fmt::join(entry.tensor.sizes(), ", "),
               fmt::join(entry.sizes, ", "));
    }
  }

 private:
  struct Entry {
    at::Tensor tensor;
    void* data;
    std::vector<int64_t> sizes;
  };
  std::vector<Entry> before_;
};
#endif

}  // namespace

void TorchFrame::fill(const Call& call, torch::jit::Stack& stack) {
  stack.clear();
  for (const Source& source : call.sources) {
    const auto index = static_cast<size_t>(source.index);
    switch (source.kind) {
      case Source::Kind::kConstant:
        stack.push_back(call.constants[index]);
        break;
      case Source::Kind::kSlot:
        stack.emplace_back(slots_[index]);
        break;
      case Source::Kind::kBound:
        stack.push_back(bound_[index]);
        break;
      case Source::Kind::kTensorList: {
        c10::List<at::Tensor> list;
        list.reserve(call.lists[index].size());
        for (const SlotId id : call.lists[index]) list.push_back(slot(id));
        stack.emplace_back(std::move(list));
        break;
      }
      case Source::Kind::kOptionalTensorList: {
        c10::List<std::optional<at::Tensor>> list;
        list.reserve(call.lists[index].size());
        for (const SlotId id : call.lists[index]) {
          list.push_back(id == kNoId ? std::nullopt : std::optional<at::Tensor>(slot(id)));
        }
        stack.emplace_back(std::move(list));
        break;
      }
    }
  }
}

void TorchFrame::call_measured(const PreparedLaunch& launch, Lane& lane) {
  const MemoryLog::Label label(launch.label);
  const int64_t start = thread_cpu_ns();
  launch.call(lane.stack);
  lane.counters.kernel_ns += thread_cpu_ns() - start;
  ++lane.counters.timed;
}

void TorchFrame::call(const PreparedLaunch& launch, Lane& lane) {
  fill(launch.call, lane.stack);
#ifdef DYNAFLOW_DEBUG_CHECKS
  const OutCheck check(launch, slots_);
#endif
  if (bare_calls_ != nullptr) bare_calls_->add(launch.call, lane.stack);
  if (measured_) {
    call_measured(launch, lane);
  } else {
    launch.call(lane.stack);
  }
  if (launch.replaces && is_told(launch.delivery)) check_written(launch);
#ifdef DYNAFLOW_DEBUG_CHECKS
  check.finish();
#endif
  ++lane.counters.launches;
  if (!is_told(launch.delivery) && !launch.outputs.empty()) deliver(launch, lane);
  lane.stack.clear();
}

/// The results lie on the stack, tensor lists among them.
void TorchFrame::deliver(const PreparedLaunch& launch, Lane& lane) {
  const MemoryLog::Label label(launch.label);
  size_t next = 0;
  const auto take = [&](at::Tensor result) {
    const SlotId id = next < launch.outputs.size() ? launch.outputs[next] : kNoId;
    ++next;
    if (id == kNoId || !result.defined()) return;
    if (launch.delivery == Delivery::kCopy && shape_of(id).root != Root::kKernel) {
      if (const std::string wrong = misfit(id, result); !wrong.empty()) throw std::runtime_error(wrong);
      slot(id).copy_(result);
      count_copy(result, lane);
      ++lane.counters.fresh_results;
    } else {
      store(id, std::move(result), lane);
    }
  };
  for (c10::IValue& result : lane.stack) {
    if (result.isTensorList()) {
      for (at::Tensor& tensor : result.toTensorVector()) take(std::move(tensor));
    } else {
      take(result.isTensor() ? std::move(result).toTensor() : at::Tensor());
    }
  }
}

void TorchFrame::count_copy(const at::Tensor& result, Lane& lane) const {
  const auto bytes = static_cast<int64_t>(result.nbytes());
  lane.counters.copied_bytes += bytes;
  if (measured_) MemoryLog::copied(bytes);
}

/// Says how a result differs from what the graph makes in its slot; empty where it does not.
std::string TorchFrame::misfit(SlotId id, const at::Tensor& result) const {
  const PreparedSlot& expected = shape_of(id);
  bool same = static_cast<size_t>(result.dim()) == expected.shape.sizes.size() &&
              result.scalar_type() == expected.dtype;
  for (size_t d = 0; same && d < expected.shape.sizes.size(); ++d)
    same = result.size(static_cast<int64_t>(d)) == value(expected.shape.sizes[d]);
  if (same) return {};
  std::vector<int64_t> sizes;
  for (const int reg : expected.shape.sizes) sizes.push_back(value(reg));
  return formatted("returned {} [{}] where the graph says {} [{}]", c10::toString(result.scalar_type()),
                   fmt::join(result.sizes(), ", "), c10::toString(expected.dtype), fmt::join(sizes, ", "));
}

/// An out= kernel that makes another shape gives its argument that shape.
void TorchFrame::check_written(const PreparedLaunch& launch) {
  for (const SlotId id : launch.outputs) {
    if (id == kNoId) continue;
    if (const std::string wrong = misfit(id, slot(id)); !wrong.empty()) throw std::runtime_error(wrong);
  }
}

/// Gives slots back the shape that a kernel may have taken from them.
void TorchFrame::restore_written(const PreparedLaunch& launch) {
  if (!launch.replaces || !is_told(launch.delivery)) return;
  for (const SlotId id : launch.outputs)
    if (id != kNoId) bind_sizes(id, slot(id).storage_offset());
}

at::Tensor TorchFrame::empty_like_slot(SlotId id) const {
  const PreparedSlot& slot = shape_of(id);
  c10::SmallVector<int64_t, 8> sizes;
  c10::SmallVector<int64_t, 8> strides;
  for (const int reg : slot.shape.sizes) sizes.push_back(value(reg));
  for (const int reg : slot.shape.strides) strides.push_back(value(reg));
  return at::empty_strided(sizes, strides, at::TensorOptions().dtype(slot.dtype).device(*device_));
}

/// Puts a kernel's own tensor in its slot and points the slot's views at it.
void TorchFrame::store(SlotId id, at::Tensor result, Lane& lane) {
  const PreparedSlot& expected = shape_of(id);
  if (const std::string wrong = misfit(id, result); !wrong.empty()) throw std::runtime_error(wrong);
  bool same_strides = true;
  for (size_t d = 0; d < expected.shape.sizes.size(); ++d) {
    const auto dim = static_cast<int64_t>(d);
    same_strides =
        same_strides && (result.size(dim) <= 1 || result.stride(dim) == value(expected.shape.strides[d]));
  }
  ++lane.counters.fresh_results;
  if (!same_strides && result.numel() > 0) {
    at::Tensor copy = empty_like_slot(id);
    copy.copy_(result);
    count_copy(result, lane);
    result = std::move(copy);
  }
  for (const SlotId view : prepared_->kernel_views[static_cast<size_t>(id)]) {
    const PreparedSlot& shape = shape_of(view);
    const auto item = static_cast<int64_t>(c10::elementSize(expected.dtype));
    const auto view_item = static_cast<int64_t>(c10::elementSize(shape.dtype));
    const int64_t first = (result.storage_offset() - value(expected.shape.offset)) * item / view_item;
    set_storage(view, result.storage());
    slot(view).unsafeGetTensorImpl()->set_storage_offset(first + value(shape.shape.offset));
  }
  slot(id) = std::move(result);
}

std::shared_ptr<Completion> TorchFrame::start(RunId run, const PreparedLaunch& launch, Lane& lane) {
  const SlotId id = launch.outputs.front();
  if (launch.delivery == Delivery::kFresh) store(id, empty_like_slot(id), lane);
  fill(launch.call, lane.stack);
  std::function<void()> on_end;
  if (recorder_) on_end = [recorder = recorder_, run] { recorder->completed(run); };
  const int64_t started = measured_ ? thread_cpu_ns() : 0;
  auto completion = launch.group->start(*launch.collective, lane.stack, slot(id), std::move(on_end));
  if (measured_) {
    lane.counters.kernel_ns += thread_cpu_ns() - started;
    ++lane.counters.timed;
  }
  ++lane.counters.launches;
  ++collectives_issued_;
  lane.stack.clear();
  return completion;
}

std::shared_ptr<Completion> TorchFrame::launch(RunId id) {
  const PreparedRun& run = prepared_->runs[static_cast<size_t>(id)];
  Lane& lane = lanes_[static_cast<size_t>(run.stream)];
  const c10::impl::ExcludeDispatchKeyGuard lowered(kLowered);
  RECORD_USER_SCOPE(run.name);
  std::shared_ptr<Completion> pending;
  const PreparedLaunch* current = nullptr;
  try {
    for (const PreparedLaunch& launch : run.launches) {
      if (pending) std::exchange(pending, nullptr)->wait();  // what follows may read it
      current = &launch;
      if (launch.reads_context) enter_context(run.parts);
      if (launch.collective) {
        pending = start(id, launch, lane);
      } else {
        call(launch, lane);
      }
    }
    if (pending && !run.asynchronous) std::exchange(pending, nullptr)->wait();
  } catch (const std::exception& error) {
    lane.stack.clear();
    restore_written(*current);
    const Op& op = prepared_->plan->op(current->op);
    throw std::runtime_error(formatted("{} ('{}'): {}", op.target, op.name, error_text(error)));
  }
  if (!pending && run.asynchronous && recorder_) recorder_->completed(id);
  return pending;
}

}  // namespace dynaflow
