#pragma once
#include <cstdint>
#include <vector>

#include "dynaflow/plan.h"

namespace dynaflow {

/// Which buffers lie above which in the arena, at every size. Throws PlanError when they do in a cycle.
class Above {
 public:
  explicit Above(const std::vector<Buffer>& buffers);
  /// One of the two lies above the other, on it or on what lies above it: they never share a byte.
  bool apart(BufferId a, BufferId b) const { return reaches(a, b) || reaches(b, a); }

 private:
  /// A bit for each buffer below one: words [first, last) of them, for buffers near in time have near ids.
  struct Row {
    int32_t first = 0;
    int32_t last = 0;
    size_t bits = 0;  // where its first word is
  };
  void add_row(BufferId id, const std::vector<BufferId>& unders);
  void add(Row& row, BufferId under);
  bool reaches(BufferId upper, BufferId lower) const { return has(rows_[static_cast<size_t>(upper)], lower); }
  bool has(const Row& row, BufferId id) const {
    const int32_t word = id / 64;
    if (word < row.first || word >= row.last) return false;
    return (bits_[row.bits + static_cast<size_t>(word - row.first)] >> (id % 64) & 1) != 0;
  }

  std::vector<Row> rows_;  // by buffer
  std::vector<uint64_t> bits_;
};

}  // namespace dynaflow
