#include "plan/verify/slots.h"

namespace dynaflow {

size_t SlotChecker::Hash::operator()(const Question& question) const {
  size_t hash = question.size();
  for (int32_t part : question) hash = (hash ^ static_cast<size_t>(part)) * 0x9e3779b97f4a7c15ULL;
  return hash ^ (hash >> 32);
}

std::optional<Violation> SlotChecker::run() {
  for (SlotId slot = 0; slot < static_cast<SlotId>(plan_.slots.size()); ++slot)
    if (auto violation = check_slot(slot)) return violation;
  for (const auto& [storage, value] : storages_.values())
    if (auto violation = check_room(storage, value)) return violation;
  for (RunId run = 0; run < static_cast<RunId>(plan_.runs.size()); ++run)
    if (auto violation = check_run(run)) return violation;
  return std::nullopt;
}

/// A value without rows may still be another one in each part: only its slot says whose it is.
std::optional<Violation> SlotChecker::check_run(RunId id) const {
  const Run& run = plan_.runs[id];
  for (const OpLaunch& launch : run.launches)
    for (const std::vector<SlotId>* slots : {&launch.inputs, &launch.outputs})
      for (SlotId used : *slots) {
        if (used == kNoId) continue;
        const Slot& slot = plan_.slots[static_cast<size_t>(used)];
        const bool own = slot.first_part == run.first_part && slot.last_part == run.last_part;
        if (own || (slot.first_part == 0 && slot.last_part == plan_.cut.parts)) continue;
        const std::string what = formatted("'{}' ({} on stream '{}')", run.name, plan_.op(launch.op).target,
                                           plan_.streams[static_cast<size_t>(run.stream)].name);
        return Violation{Violation::Kind::kGeometry,
                         {id, what},
                         {},
                         formatted("{} on parts [{}, {}) uses slot {}, which is %{} on parts [{}, {})", what,
                                   run.first_part, run.last_part, used, plan_.graph->values[slot.value].name,
                                   slot.first_part, slot.last_part)};
      }
  return std::nullopt;
}

std::optional<Violation> SlotChecker::check_slot(SlotId id) {
  const Slot& slot = plan_.slots[static_cast<size_t>(id)];
  const StorageId storage = storages_.of(id);
  const PartRange held = storages_[storage].held;
  const Graph& graph = *plan_.graph;
  question_ = {id_of(graph.values[slot.value].meta),
               id_of(graph.values[storage_root(graph, slot.value)].meta),
               static_cast<int32_t>(slot.root),
               slot.first_part,
               slot.last_part,
               held.first,
               held.second,
               id_of(slot.meta)};
  if (!is_new()) return std::nullopt;
  const std::string problem = geometry_.problem(slot, held);
  if (problem.empty()) return std::nullopt;
  return Violation{
      Violation::Kind::kGeometry,
      {},
      {},
      formatted("slot {} (%{} on parts [{}, {}) in {}): {}", id, plan_.graph->values[slot.value].name,
                slot.first_part, slot.last_part, storages_.name(storage), problem)};
}

std::optional<Violation> SlotChecker::check_room(StorageId id, ValueId value) {
  const StorageUse& storage = storages_[id];
  if (storage.root != Root::kArena && storage.root != Root::kOutput) return std::nullopt;
  const bool arena = storage.root == Root::kArena;
  const auto index = static_cast<size_t>(storage.index);
  const SizeExpr& size = arena ? plan_.buffers[index].bytes : plan_.output_storage[index].elements;
  const int64_t unit = arena ? 1 : item_size(plan_.output_storage[index].dtype);
  question_ = {id_of(plan_.graph->values[value].meta), storage.held.first, storage.held.second, id_of(size),
               static_cast<int32_t>(unit)};
  if (!is_new()) return std::nullopt;
  const SizeExpr room = size * unit;
  const SizeExpr need = geometry_.bytes(value, storage.held);
  if (geometry_.at_least(room, need)) return std::nullopt;
  return Violation{Violation::Kind::kGeometry,
                   {},
                   {},
                   formatted("{} has {} bytes, and %{} needs {}", storages_.name(id), room.str(),
                             plan_.graph->values[value].name, need.str())};
}

int32_t SlotChecker::id_of(const SizeExpr& expr) {
  return exprs_.try_emplace(expr, static_cast<int32_t>(exprs_.size())).first->second;
}

/// Tensors that are alike share their meta; where they do not, a question is asked twice.
int32_t SlotChecker::id_of(const SharedMeta& meta) {
  return metas_.try_emplace(&*meta, static_cast<int32_t>(metas_.size())).first->second;
}

}  // namespace dynaflow
