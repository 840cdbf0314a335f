#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "plan/verify/geometry.h"

namespace dynaflow {

using StorageId = int32_t;

/// Bytes that slots lie in: a buffer, an argument, a constant, an output storage or a kernel's own tensor.
struct StorageUse {
  Root root = Root::kArena;
  int32_t index = kNoId;
  PartRange held;         // the parts whose rows it holds
  ValueId first = kNoId;  // the root of the value of its first slot
  ValueId last = kNoId;   // and of its last
  bool rows = true;       // each part's are its own; else all parts see all bytes
  bool written = false;   // by the plan
  int uses = 0;           // by launches, one for each slot
};

/// The storages of a plan, in the order of their first use.
class Storages {
 public:
  explicit Storages(const Plan& plan);
  size_t size() const { return storages_.size(); }
  const StorageUse& operator[](StorageId id) const { return storages_[static_cast<size_t>(id)]; }
  StorageId of(SlotId slot) const { return of_slot_[static_cast<size_t>(slot)]; }
  /// Every root value with a storage that it lies in, at least once.
  const std::vector<std::pair<StorageId, ValueId>>& values() const { return values_; }
  /// "buffer 3", "output 0", "the tensor of %x".
  std::string name(StorageId id) const;

 private:
  StorageId& known(const Slot& slot, ValueId value);
  void add_slot(SlotId id);
  void add_uses();

  const Plan& plan_;
  std::vector<StorageUse> storages_;
  std::vector<StorageId> of_slot_;
  std::vector<std::pair<StorageId, ValueId>> values_;
  std::array<std::vector<StorageId>, 4> known_;  // by Root and what is there: buffer, value, output or slot
};

}  // namespace dynaflow
