#pragma once
#include <algorithm>
#include <vector>

#include "dynaflow/plan.h"

namespace dynaflow {

/// The ranges of parts that a plan's runs and values have: few, and numbered in their order.
class Ranges {
 public:
  explicit Ranges(std::vector<PartRange> ranges) : all_(std::move(ranges)) {
    std::sort(all_.begin(), all_.end());
    all_.erase(std::unique(all_.begin(), all_.end()), all_.end());
  }
  size_t size() const { return all_.size(); }
  PartRange operator[](size_t number) const { return all_[number]; }
  /// The number of a range that is one of these.
  size_t number(PartRange range) const {
    return static_cast<size_t>(std::lower_bound(all_.begin(), all_.end(), range) - all_.begin());
  }

 private:
  std::vector<PartRange> all_;
};

/// Something for each value on each range of parts, in one block of memory.
template <typename T>
class RangeTable {
 public:
  RangeTable(size_t values, const Ranges& ranges, T none)
      : width_(ranges.size()), cells_(values * width_, none) {}
  T& at(ValueId value, size_t range) { return cells_[static_cast<size_t>(value) * width_ + range]; }
  const T& at(ValueId value, size_t range) const {
    return cells_[static_cast<size_t>(value) * width_ + range];
  }

 private:
  size_t width_;
  std::vector<T> cells_;
};

}  // namespace dynaflow
