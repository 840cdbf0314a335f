#pragma once
#include <ATen/core/stack.h>

#include <map>
#include <memory>
#include <string>

namespace torch::inductor {
class AOTIModelPackageLoader;
}

namespace dynaflow {

/// A kernel that AOTInductor compiled for a chain of ops: takes the chain's inputs, then the tensors that it
/// writes, and returns nothing. Immutable and thread-safe.
class CompiledKernel {
 public:
  /// Loads a package. Throws PlanError naming the file when it is none.
  explicit CompiledKernel(const std::string& path);
  ~CompiledKernel();
  /// Takes the tensors off the stack.
  void run(torch::jit::Stack& stack) const;

 private:
  std::unique_ptr<torch::inductor::AOTIModelPackageLoader> package_;
};
using CompiledKernels = std::map<std::string, std::shared_ptr<const CompiledKernel>>;  // by target

}  // namespace dynaflow
