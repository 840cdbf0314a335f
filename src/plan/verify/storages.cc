#include "plan/verify/storages.h"

#include <algorithm>

namespace dynaflow {

Storages::Storages(const Plan& plan) : plan_(plan) {
  known_[0].assign(plan.buffers.size(), kNoId);
  known_[1].assign(plan.graph->values.size(), kNoId);
  known_[2].assign(plan.output_storage.size(), kNoId);
  known_[3].assign(plan.slots.size(), kNoId);
  for (SlotId id = 0; id < static_cast<SlotId>(plan.slots.size()); ++id) add_slot(id);
  add_uses();
}

/// Where to find a slot's storage. An argument is known by the value that it is.
StorageId& Storages::known(const Slot& slot, ValueId value) {
  switch (slot.root) {
    case Root::kArena:
      return known_[0][static_cast<size_t>(slot.index)];
    case Root::kOutput:
      return known_[2][static_cast<size_t>(slot.index)];
    case Root::kKernel:
      return known_[3][static_cast<size_t>(slot.index)];
    case Root::kArgument:
    case Root::kConstant:
      break;
  }
  return known_[1][static_cast<size_t>(value)];
}

void Storages::add_slot(SlotId id) {
  const Slot& slot = plan_.slots[static_cast<size_t>(id)];
  const bool caller = slot.root == Root::kArgument || slot.root == Root::kConstant;
  const PartRange own = caller ? PartRange{0, plan_.cut.parts} : PartRange{slot.first_part, slot.last_part};
  const ValueId value = storage_root(*plan_.graph, slot.value);
  StorageId& place = known(slot, value);
  if (place == kNoId) {
    place = static_cast<StorageId>(size());
    storages_.push_back({slot.root, slot.index, own, value});
  }
  StorageUse& storage = storages_[static_cast<size_t>(place)];
  if (storage.last != value) storage.rows = storage.rows && Geometry(plan_).has_rows(value);
  storage.held.first = std::min(storage.held.first, own.first);
  storage.held.second = std::max(storage.held.second, own.second);
  if (std::exchange(storage.last, value) != value) values_.emplace_back(place, value);
  of_slot_.push_back(place);
}

void Storages::add_uses() {
  for (const Run& run : plan_.runs) {
    for (const OpLaunch& launch : run.launches) {
      const Op& op = plan_.op(launch.op);
      for (SlotId slot : launch.inputs) ++storages_[static_cast<size_t>(of(slot))].uses;
      for (SlotId slot : launch.outputs) {
        if (slot == kNoId) continue;
        StorageUse& storage = storages_[static_cast<size_t>(of(slot))];
        ++storage.uses;
        storage.written = true;
      }
      if (op.effects.writes.empty()) continue;
      for (SlotId slot : launch.inputs) storages_[static_cast<size_t>(of(slot))].written = true;
    }
  }
}

std::string Storages::name(StorageId id) const {
  const StorageUse& storage = (*this)[id];
  switch (storage.root) {
    case Root::kArena:
      return formatted("buffer {}", storage.index);
    case Root::kArgument:
      return formatted("argument {}", storage.index);
    case Root::kConstant:
      return formatted("constant {}", storage.index);
    case Root::kOutput:
      return formatted("output {}", storage.index);
    case Root::kKernel:
      break;
  }
  return formatted("the tensor of %{}",
                   plan_.graph->values[plan_.slots[static_cast<size_t>(storage.index)].value].name);
}

}  // namespace dynaflow
