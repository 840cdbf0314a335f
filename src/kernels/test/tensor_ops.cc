#include "kernels/test/tensor_ops.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>
#include <thread>

#include "dynaflow/base.h"

namespace dynaflow::test {

int64_t View::count() const {
  int64_t count = 1;
  for (int64_t size : sizes) count *= size;
  return count;
}

int64_t View::span() const {
  int64_t last = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0) return 0;
    last += (sizes[i] - 1) * strides[i];
  }
  return last + 1;
}

float& View::at(int64_t linear, const std::vector<int64_t>& shape) const {
  DF_CHECK(sizes.size() <= shape.size(), "a tensor of {} dimensions is read as one of {}", sizes.size(),
           shape.size());
  int64_t offset = 0;
  const size_t missing = shape.size() - sizes.size();
  for (size_t i = shape.size(); i-- > missing;) {
    const int64_t index = linear % shape[i];
    linear /= shape[i];
    const int64_t size = sizes[i - missing];
    DF_CHECK(size == shape[i] || size == 1, "size {} does not broadcast to {}", size, shape[i]);
    if (size != 1) offset += index * strides[i - missing];
  }
  return data[offset];
}

namespace {

template <typename Function>
Kernel pointwise(Function function) {
  return [function](const View& out, std::span<const View> in, const OpParams& params) {
    DF_CHECK(in.size() >= 2, "a test kernel of two tensors got {}", in.size());
    const int64_t count = out.count();
    for (int64_t i = 0; i < count; ++i)
      out.at(i) = function(in[0].at(i, out.sizes), in[1].at(i, out.sizes), static_cast<float>(params.scale));
  };
}

void copy(const View& out, std::span<const View> in, const OpParams&) {
  scale_range(out, in[0], 0, out.count(), 1);
}

void slow(const View& out, std::span<const View> in, const OpParams& params) {
  std::this_thread::sleep_for(std::chrono::microseconds(params.delay_us));
  copy(out, in, params);
}

[[noreturn]] void fail(const View&, std::span<const View>, const OpParams&) {
  throw std::runtime_error("test.fail was called");
}

void relu(const View& out, std::span<const View> in, const OpParams&) {
  const int64_t count = out.count();
  for (int64_t i = 0; i < count; ++i) {
    const float x = in[0].at(i, out.sizes);
    out.at(i) = x < 0 ? 0 : x;  // NaN stays NaN
  }
}

void mm(const View& out, std::span<const View> in, const OpParams&) {
  const View& a = in[0];
  const View& b = in[1];
  for (int64_t row = 0; row < out.sizes[0]; ++row) {
    for (int64_t column = 0; column < out.sizes[1]; ++column) {
      float sum = 0;
      for (int64_t k = 0; k < a.sizes[1]; ++k)
        sum +=
            a.data[row * a.strides[0] + k * a.strides[1]] * b.data[k * b.strides[0] + column * b.strides[1]];
      out.data[row * out.strides[0] + column * out.strides[1]] = sum;
    }
  }
}

/// What mm and add give together, bit for bit.
void mm_add(const View& out, std::span<const View> in, const OpParams& params) {
  mm(out, in.first(2), params);
  const int64_t count = out.count();
  for (int64_t i = 0; i < count; ++i) out.at(i) += in[2].at(i, out.sizes);
}

/// Also without keepdim: `out` then lacks the dimensions that are summed.
void sum(const View& out, std::span<const View> in, const OpParams& params) {
  const auto rank = static_cast<int64_t>(in[0].sizes.size());
  View wide{out.data, in[0].sizes, std::vector<int64_t>(in[0].sizes.size(), 0)};
  size_t next = 0;
  for (int64_t dim = 0; dim < rank; ++dim) {
    const bool summed =
        params.dims.empty() || std::any_of(params.dims.begin(), params.dims.end(),
                                           [&](int64_t wanted) { return (wanted + rank) % rank == dim; });
    const bool kept = out.sizes.size() == in[0].sizes.size();
    if (!summed) wide.strides[static_cast<size_t>(dim)] = out.strides[next];
    if (!summed || kept) ++next;
  }
  for (int64_t i = 0; i < out.count(); ++i) out.at(i) = 0;
  for (int64_t i = 0; i < in[0].count(); ++i) wide.at(i) += in[0].at(i);
}

const std::map<std::string, Kernel>& kernels() {
  static const std::map<std::string, Kernel> table = {
      {"aten.add.Tensor", pointwise([](float a, float b, float alpha) { return a + alpha * b; })},
      {"aten.mul.Tensor", pointwise([](float a, float b, float) { return a * b; })},
      {"aten.copy.default", pointwise([](float, float b, float) { return b; })},
      {"aten.relu.default", relu},
      {"aten.mm.default", mm},
      {"aten.sum.dim_IntList", sum},
      {"aten.clone.default", copy},
      {"test.mm_add.default", mm_add},
      {"test.slow.default", slow},
      {"test.fail.default", fail},
  };
  return table;
}

}  // namespace

Kernel find_kernel(const std::string& target) {
  const auto found = kernels().find(target);
  return found == kernels().end() ? Kernel() : found->second;
}

std::string kernel_names() {
  std::string names;
  for (const auto& [name, kernel] : kernels()) names += name + ", ";
  return names + "_c10d_functional.all_reduce.default";
}

void scale_range(const View& out, const View& in, int64_t begin, int64_t end, float factor) {
  for (int64_t i = begin; i < end; ++i) out.at(i) = factor * in.at(i, out.sizes);
}

void fill_nan(std::span<float> memory) {
  std::fill(memory.begin(), memory.end(), std::numeric_limits<float>::quiet_NaN());
}

}  // namespace dynaflow::test
