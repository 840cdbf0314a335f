#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace dynaflow::test {

/// A strided float32 tensor on somebody's memory.
struct View {
  float* data = nullptr;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;

  int64_t count() const;
  /// Elements from the first byte of the tensor to its last, both included.
  int64_t span() const;
  /// The element at the row-major position `linear` of a tensor of shape `shape`, to which this one
  /// broadcasts.
  float& at(int64_t linear, const std::vector<int64_t>& shape) const;
  float& at(int64_t linear) const { return at(linear, sizes); }
};

/// What an op needs beside its tensors, read from its arguments once.
struct OpParams {
  double scale = 1;           // add: alpha
  std::vector<int64_t> dims;  // sum
  int64_t delay_us = 0;       // slow
};

using Kernel = std::function<void(const View& out, std::span<const View> in, const OpParams& params)>;

/// The kernel of a compute op, or an empty function when there is none.
Kernel find_kernel(const std::string& target);
/// Targets with a kernel, "a, b, c".
std::string kernel_names();

/// Elements [begin, end) of out = factor * in.
void scale_range(const View& out, const View& in, int64_t begin, int64_t end, float factor);
void fill_nan(std::span<float> memory);

}  // namespace dynaflow::test
