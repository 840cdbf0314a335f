#include <ATen/ops/cumsum.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/sum.h>
#include <torch/library.h>

#include <optional>

// out= forms of ops that PyTorch has none for, or whose own makes a tensor on the way. Each takes the op's
// arguments and `out`, which has the result's shape, dtype and strides. python/dynaflow/capture_schema.py
// names them.

namespace dynaflow {
namespace {

using at::Scalar;
using at::Tensor;
using c10::MemoryFormat;
using Dtype = std::optional<c10::ScalarType>;
using LayoutType = std::optional<c10::Layout>;
using DeviceType = std::optional<c10::Device>;

Tensor& clone_out(const Tensor& self, std::optional<MemoryFormat>, Tensor& out) { return out.copy_(self); }

Tensor& lift_fresh_copy_out(const Tensor& self, Tensor& out) { return out.copy_(self); }

Tensor& to_copy_out(const Tensor& self, Dtype, LayoutType, DeviceType, std::optional<bool>, bool non_blocking,
                    std::optional<MemoryFormat>, Tensor& out) {
  return out.copy_(self, non_blocking);
}

/// Rows of the table, which index_select writes where it is told when it is given a list of indices.
Tensor& embedding_out(const Tensor& weight, const Tensor& indices, c10::SymInt, bool, bool, Tensor& out) {
  Tensor rows = out.view({indices.numel(), weight.size(1)});
  at::index_select_out(rows, weight, 0, indices.reshape({-1}));
  return out;
}

Tensor& new_ones_out(const Tensor&, c10::SymIntArrayRef, Dtype, LayoutType, DeviceType, std::optional<bool>,
                     Tensor& out) {
  return out.fill_(1);
}

Tensor& new_zeros_out(const Tensor&, c10::SymIntArrayRef, Dtype, LayoutType, DeviceType, std::optional<bool>,
                      Tensor& out) {
  return out.zero_();
}

Tensor& new_full_out(const Tensor&, c10::SymIntArrayRef, const Scalar& value, Dtype, LayoutType, DeviceType,
                     std::optional<bool>, Tensor& out) {
  return out.fill_(value);
}

Tensor& ones_like_out(const Tensor&, Dtype, LayoutType, DeviceType, std::optional<bool>,
                      std::optional<MemoryFormat>, Tensor& out) {
  return out.fill_(1);
}

Tensor& zeros_like_out(const Tensor&, Dtype, LayoutType, DeviceType, std::optional<bool>,
                       std::optional<MemoryFormat>, Tensor& out) {
  return out.zero_();
}

Tensor& full_like_out(const Tensor&, const Scalar& value, Dtype, LayoutType, DeviceType, std::optional<bool>,
                      std::optional<MemoryFormat>, Tensor& out) {
  return out.fill_(value);
}

Tensor& scalar_tensor_out(const Scalar& value, Tensor& out) { return out.fill_(value); }

/// As at::mean computes it, but for the count, which lies on the stack.
Tensor& mean_out(const Tensor& self, at::OptionalIntArrayRef dim, bool keepdim, Dtype dtype, Tensor& out) {
  if (!out.is_cpu() || out.scalar_type() != c10::kFloat || self.scalar_type() != c10::kFloat)
    return at::mean_out(out, self, dim, keepdim, dtype);
  at::sum_out(out, self, dim, keepdim);
  float count = out.numel() == 0 ? 0 : static_cast<float>(self.numel() / out.numel());
  return out.div_(at::from_blob(&count, {}, c10::kFloat));
}

/// Sums up in place, where at::cumsum would convert its input to a tensor of its own first.
Tensor& cumsum_out(const Tensor& self, int64_t dim, Dtype dtype, Tensor& out) {
  if (self.scalar_type() == out.scalar_type()) return at::cumsum_out(out, self, dim, dtype);
  return out.copy_(self).cumsum_(dim);
}

constexpr const char* kKind =
    "ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None";

/// "clone.out(Tensor self, *, ..., Tensor(a!) out) -> Tensor(a!)".
template <typename Function>
void define(torch::Library& library, const std::string& name, const std::string& positional,
            const std::string& keywords, Function* function) {
  const std::string schema = name + ".out(" + positional + ", *, " + keywords +
                             (keywords.empty() ? "" : ", ") + "Tensor(a!) out) -> Tensor(a!)";
  library.def(schema.c_str());
  library.impl((name + ".out").c_str(), c10::DispatchKey::CompositeExplicitAutograd, function);
}

}  // namespace
}  // namespace dynaflow

TORCH_LIBRARY_FRAGMENT(dynaflow, m) {
  using namespace dynaflow;
  const std::string kind = kKind;
  const std::string format = "MemoryFormat? memory_format=None";
  define(m, "clone", "Tensor self", format, clone_out);
  define(m, "lift_fresh_copy", "Tensor self", "", lift_fresh_copy_out);
  define(m, "_to_copy", "Tensor self", kind + ", bool non_blocking=False, " + format, to_copy_out);
  define(m, "embedding",
         "Tensor weight, Tensor indices, SymInt padding_idx=-1, bool scale_grad_by_freq=False, bool "
         "sparse=False",
         "", embedding_out);
  define(m, "mean", "Tensor self, int[1]? dim, bool keepdim=False", "ScalarType? dtype=None", mean_out);
  define(m, "cumsum", "Tensor self, int dim", "ScalarType? dtype=None", cumsum_out);
  define(m, "new_ones", "Tensor self, SymInt[] size", kind, new_ones_out);
  define(m, "new_zeros", "Tensor self, SymInt[] size", kind, new_zeros_out);
  define(m, "new_full", "Tensor self, SymInt[] size, Scalar fill_value", kind, new_full_out);
  define(m, "ones_like", "Tensor self", kind + ", " + format, ones_like_out);
  define(m, "zeros_like", "Tensor self", kind + ", " + format, zeros_like_out);
  define(m, "full_like", "Tensor self, Scalar fill_value", kind + ", " + format, full_like_out);
  define(m, "scalar_tensor", "Scalar s", "", scalar_tensor_out);
}
