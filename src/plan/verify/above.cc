#include "plan/verify/above.h"

#include <algorithm>

#include "plan/buffers.h"

namespace dynaflow {

Above::Above(const std::vector<Buffer>& buffers) : rows_(buffers.size()) {
  for (BufferId id : bottom_up(buffers)) add_row(id, buffers[static_cast<size_t>(id)].above);
}

void Above::add_row(BufferId id, const std::vector<BufferId>& unders) {
  if (unders.empty()) return;
  Row& row = rows_[static_cast<size_t>(id)];
  row = {unders.front() / 64, unders.front() / 64 + 1, bits_.size()};
  for (BufferId under : unders) {
    const Row& other = rows_[static_cast<size_t>(under)];
    row.first = std::min(row.first, under / 64);
    row.last = std::max(row.last, under / 64 + 1);
    if (other.first == other.last) continue;
    row.first = std::min(row.first, other.first);
    row.last = std::max(row.last, other.last);
  }
  bits_.resize(row.bits + static_cast<size_t>(row.last - row.first));
  for (BufferId under : unders)
    if (!has(row, under)) add(row, under);
}

/// Puts `under` and all that it lies above into a row.
void Above::add(Row& row, BufferId under) {
  bits_[row.bits + static_cast<size_t>(under / 64 - row.first)] |= uint64_t{1} << (under % 64);
  const Row& other = rows_[static_cast<size_t>(under)];
  for (int32_t word = other.first; word < other.last; ++word)
    bits_[row.bits + static_cast<size_t>(word - row.first)] |=
        bits_[other.bits + static_cast<size_t>(word - other.first)];
}

}  // namespace dynaflow
