#include "torch/bare_calls.h"

#include <ATen/ops/alias.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include "torch/launch.h"

namespace dynaflow {
namespace {

/// Slots are bound anew in every step; their aliases stay what they are now.
at::Tensor kept(const at::Tensor& tensor) { return tensor.defined() ? at::alias(tensor) : tensor; }

c10::IValue kept(const c10::IValue& argument) {
  if (argument.isTensor()) return kept(argument.toTensor());
  if (argument.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& tensor : argument.toTensorVector()) list.push_back(kept(tensor));
    return list;
  }
  if (argument.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    for (const auto& tensor : argument.toOptionalTensorVector())
      list.push_back(tensor ? std::optional(kept(*tensor)) : std::nullopt);
    return list;
  }
  return argument;
}

}  // namespace

void BareCalls::add(const Call& call, const torch::jit::Stack& arguments) {
  BareCall bare{call, {}};
  for (const c10::IValue& argument : arguments) bare.arguments.push_back(kept(argument));
  calls_.push_back(std::move(bare));
}

void BareCalls::run() {
  const c10::impl::ExcludeDispatchKeyGuard lowered(kLowered);
  for (const BareCall& call : calls_) {
    stack_ = call.arguments;
    call.call(stack_);
    stack_.clear();
  }
}

}  // namespace dynaflow
