#pragma once
#include <string>
#include <utility>

#include "dynaflow/plan.h"

namespace dynaflow {

/// Checks where slots lie in their storages, for all legal sizes at once.
///
/// Parts are apart because each keeps to its own rows' share of the storage, and a value has the same place
/// relative to those rows in every part.
class Geometry {
 public:
  explicit Geometry(const Plan& plan) : plan_(plan) {}

  /// Why the slot, in a storage that holds the rows of `held`, is not where its value is; empty when it is.
  std::string problem(const Slot& slot, PartRange held) const;
  /// Whether parts have rows of their own in a value; else all of them see all of it.
  bool has_rows(ValueId value) const;
  /// Bytes that a value needs on the rows of `range`, when it is dense.
  SizeExpr bytes(ValueId value, PartRange range) const;
  /// Whether a >= b for all legal sizes. False when that cannot be shown.
  bool at_least(const SizeExpr& a, const SizeExpr& b) const;

 private:
  SizeExpr on(const SizeExpr& expr, PartRange range) const;
  SizeExpr elements(ValueId value, PartRange range) const;
  int batch_dim(const TensorMeta& meta) const;
  std::string share_problem(const Slot& slot, PartRange held) const;
  SizeExpr above_minimum(SizeExpr expr) const;

  const Plan& plan_;
};

}  // namespace dynaflow
