#include "torch/compiled.h"

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include "dynaflow/base.h"

namespace dynaflow {

namespace {

constexpr size_t kRunners = 4;  // calls of one kernel that may be under way at once; more wait

}  // namespace

CompiledKernel::CompiledKernel(const std::string& path) {
  try {
    package_ = std::make_unique<torch::inductor::AOTIModelPackageLoader>(path, "model", false, kRunners);
  } catch (const std::exception& error) {
    throw PlanError(formatted("cannot load the compiled kernel {}: {}", path, error.what()));
  }
}

CompiledKernel::~CompiledKernel() = default;

void CompiledKernel::run(torch::jit::Stack& stack) const {
  std::vector<at::Tensor> tensors;
  tensors.reserve(stack.size());
  for (c10::IValue& value : stack) tensors.push_back(std::move(value).toTensor());
  stack.clear();
  package_->boxed_run(std::move(tensors));
}

}  // namespace dynaflow
