#pragma once
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>

#include <memory>
#include <optional>
#include <vector>

#include "dynaflow/plan.h"
#include "torch/compiled.h"

namespace dynaflow {

/// Where one element of a call's stack comes from.
struct Source {
  enum class Kind : uint8_t {
    kConstant,            // Call::constants[index]
    kSlot,                // the tensor in slot `index`
    kBound,               // the frame's value of BoundValue `index`: depends on the run's sizes
    kTensorList,          // Call::lists[index]: slots
    kOptionalTensorList,  // Call::lists[index]: slots, kNoId for none
  };
  Kind kind = Kind::kConstant;
  int32_t index = 0;
};

/// An argument that depends on sizes, evaluated when the sizes of a run change.
struct BoundValue {
  enum class Kind : uint8_t { kInt, kFloat, kTensor, kIntList, kFloatList };
  Kind kind = Kind::kInt;
  std::vector<int> registers;  // of the binder: one, or one per list element
};
c10::IValue bind_value(const BoundValue& value, const std::vector<int64_t>& registers);

/// A call prepared once: of the dispatcher, its arguments filled in schema order from `sources`; or of a
/// compiled kernel, which takes inputs and outputs.
struct Call {
  std::optional<c10::OperatorHandle> handle;
  std::shared_ptr<const CompiledKernel> compiled;
  std::vector<Source> sources;
  std::vector<c10::IValue> constants;
  std::vector<std::vector<SlotId>> lists;

  /// Takes the arguments off the stack and leaves the results there.
  void operator()(torch::jit::Stack& stack) const {
    if (compiled) return compiled->run(stack);
    handle->callBoxed(stack);
  }
};

c10::ScalarType scalar_type(DType dtype);

/// Finds operators and converts the arguments of a plan's launches by their schemas.
class CallBuilder {
 public:
  /// `bound` collects the size-dependent arguments of every call built.
  CallBuilder(const Plan& plan, Binder& binder, const CompiledKernels& compiled,
              std::vector<BoundValue>& bound)
      : plan_(plan), binder_(binder), compiled_(compiled), bound_(bound) {}
  /// The call of `launch` in `run`: of op.out_target with the output slots as its out arguments when `out`,
  /// else of op.target. Throws PlanError naming the op when torch has no such operator or the arguments do
  /// not fit.
  Call build(const Run& run, const OpLaunch& launch, bool out);

 private:
  struct Context;
  Call build_compiled(const Op& op, const OpLaunch& launch) const;
  Source convert(Context& context, const c10::Argument& formal, const Arg& actual, size_t first_input);
  std::optional<c10::ScalarType> number_dtype(const Op& op) const;
  Source convert_number(Context& context, c10::TypeKind kind, const Arg& actual);
  Source convert_list(Context& context, const c10::Argument& formal, const c10::Type& element,
                      const ArgList& items, size_t first_input);
  Source tensor_list(Context& context, bool optional, const ArgList& items, size_t first_input);
  Source convert_sizes(Context& context, const c10::Argument& formal, bool real, const ArgList& items);
  Source bind(BoundValue::Kind kind, const Context& context, const std::vector<SizeExpr>& sizes);

  const Plan& plan_;
  Binder& binder_;
  const CompiledKernels& compiled_;
  std::vector<BoundValue>& bound_;
};

}  // namespace dynaflow
