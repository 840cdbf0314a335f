#include "plan/memory.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <unordered_map>

namespace dynaflow {

namespace {

struct Candidate {
  size_t storage = 0;
  SizeExpr bytes;
  int64_t size = 0;    // at the hints, rounded up to kAlignment
  int64_t offset = 0;  // at the hints
  std::vector<Access> firsts;
  std::vector<Access> lasts;
};

bool finished_before(const Access& a, const Access& b, const HappensBefore& order) {
  return a.run == b.run ? a.launch < b.launch : order.before(a.run, b.run);
}

/// The accesses that no other one is surely earlier (or later) than: what lifetimes need to be compared.
std::vector<Access> extremes(const std::vector<Access>& accesses, const HappensBefore& order, bool earliest) {
  std::vector<Access> result;
  for (const Access& access : accesses) {
    const bool covered = std::any_of(result.begin(), result.end(), [&](const Access& other) {
      return earliest ? finished_before(other, access, order) : finished_before(access, other, order);
    });
    if (covered) continue;
    std::erase_if(result, [&](const Access& other) {
      const bool same = other.run == access.run && other.launch == access.launch;
      return same ||
             (earliest ? finished_before(access, other, order) : finished_before(other, access, order));
    });
    result.push_back(access);
  }
  return result;
}

bool dead_before(const Candidate& a, const Candidate& b, const HappensBefore& order) {
  for (const Access& last : a.lasts)
    for (const Access& first : b.firsts)
      if (!finished_before(last, first, order)) return false;
  return true;
}

/// The sizes the packing is made for: hints, with the batch cut by the plan's own rule.
class HintSizes {
 public:
  explicit HintSizes(const Plan& plan) : plan_(plan) {
    const Graph& graph = *plan.graph;
    const Symbol* batch = graph.find_symbol(graph.batch_symbol);
    if (batch == nullptr) return;
    CutRule rule = plan.cut;
    rule.kind = rule.kind == CutRule::Kind::kSizes ? CutRule::Kind::kEven : rule.kind;
    parts_ = cut(rule, std::max(batch->hint, rule.parts * std::max<int64_t>(rule.min_rows, 1)));
  }

  int64_t of(const SizeExpr& expr) {
    const auto [entry, added] = known_.try_emplace(expr);
    if (added) entry->second = expr.evaluate([this](std::string_view name) { return value_of(name); });
    return entry->second;
  }

 private:
  struct Hash {
    size_t operator()(const SizeExpr& expr) const { return hash_of(expr); }
  };

  int64_t value_of(std::string_view name) const {
    if (const Symbol* symbol = plan_.graph->find_symbol(name)) return std::max<int64_t>(symbol->hint, 1);
    for (size_t part = 0; part < parts_.size(); ++part)
      if (part_symbol(static_cast<int>(part)) == name) return parts_[part];
    throw InternalError(formatted("unknown symbol '{}' in a plan", name));
  }

  const Plan& plan_;
  std::vector<int64_t> parts_;
  std::unordered_map<SizeExpr, int64_t, Hash> known_;
};

/// Bytes of a tensor's storage, worked out once for tensors that share a meta.
class StorageBytes {
 public:
  const SizeExpr& of(const TensorMeta& meta) {
    const auto [entry, added] = known_.try_emplace(&meta);
    if (added) entry->second = storage_elements(meta) * item_size(meta.dtype);
    return entry->second;
  }

 private:
  std::unordered_map<const TensorMeta*, SizeExpr> known_;
};

std::vector<Candidate> make_candidates(const StoragePlanner& planner, const HappensBefore& order,
                                       const Plan& plan) {
  std::vector<Candidate> candidates;
  candidates.reserve(planner.storages().size());
  PartSizes sizes(*plan.graph, plan.cut.parts);
  StorageBytes bytes;
  HintSizes hints(plan);
  for (size_t id = 0; id < planner.storages().size(); ++id) {
    const Storage& storage = planner.storages()[id];
    if (storage.where != Root::kArena || storage.accesses.empty()) continue;
    Candidate candidate;
    candidate.storage = id;
    candidate.bytes = sizes.of(bytes.of(plan.graph->values[storage.root].meta), storage.range);
    const int64_t exact = hints.of(candidate.bytes);
    candidate.size = std::max<int64_t>((exact + kAlignment - 1) / kAlignment, 1) * kAlignment;
    candidate.firsts = extremes(storage.accesses, order, true);
    candidate.lasts = extremes(storage.accesses, order, false);
    candidates.push_back(std::move(candidate));
  }
  return candidates;
}

/// When a candidate is used, in issue order.
struct Span {
  RunId start = 0;
  RunId end = 0;
  RunId floor = 0;  // every run below it has ended before the candidate is first used
};

Span span_of(const Candidate& candidate, const HappensBefore& order) {
  Span span{candidate.firsts[0].run, candidate.lasts[0].run, candidate.firsts[0].run};
  for (const Access& first : candidate.firsts) {
    span.start = std::min(span.start, first.run);
    span.floor = std::min(span.floor, order.first_unordered(first.run));
  }
  for (const Access& last : candidate.lasts) span.end = std::max(span.end, last.run);
  return span;
}

/// Which candidates may not share bytes with each, side by side in memory.
class Conflicts {
 public:
  Conflicts(size_t candidates, const std::vector<std::pair<uint32_t, uint32_t>>& pairs)
      : first_(candidates + 1, 0), others_(2 * pairs.size()) {
    for (const auto& [a, b] : pairs) ++first_[a], ++first_[b];
    std::partial_sum(first_.begin(), first_.end(), first_.begin());
    for (const auto& [a, b] : pairs) {
      others_[--first_[a]] = b;
      others_[--first_[b]] = a;
    }
  }
  std::span<const uint32_t> of(size_t candidate) const {
    return std::span(others_).subspan(first_[candidate], first_[candidate + 1] - first_[candidate]);
  }

 private:
  std::vector<size_t> first_;  // by candidate, and the end of all
  std::vector<uint32_t> others_;
};

/// Looks at neighbours only: walks through the candidates by their first use and keeps those at hand that may
/// still be in use then, or when a later one starts.
Conflicts find_conflicts(const std::vector<Candidate>& candidates, const HappensBefore& order) {
  const size_t count = candidates.size();
  std::vector<Span> spans;
  spans.reserve(count);
  for (const Candidate& candidate : candidates) spans.push_back(span_of(candidate, order));
  std::vector<size_t> by_start(count);
  std::iota(by_start.begin(), by_start.end(), size_t{0});
  std::stable_sort(by_start.begin(), by_start.end(),
                   [&](size_t a, size_t b) { return spans[a].start < spans[b].start; });
  std::vector<RunId> ended(count);  // by position: every run below it has ended for this one and all later
  for (size_t i = count; i-- > 0;)
    ended[i] = i + 1 < count ? std::min(spans[by_start[i]].floor, ended[i + 1]) : spans[by_start[i]].floor;
  std::vector<std::pair<uint32_t, uint32_t>> pairs;
  std::vector<size_t> live;
  for (size_t i = 0; i < count; ++i) {
    const size_t b = by_start[i];
    std::erase_if(live, [&](size_t a) { return spans[a].end < ended[i]; });
    for (size_t a : live) {
      if (spans[a].end < spans[b].floor) continue;
      if (dead_before(candidates[a], candidates[b], order) ||
          dead_before(candidates[b], candidates[a], order))
        continue;
      pairs.emplace_back(static_cast<uint32_t>(a), static_cast<uint32_t>(b));
    }
    live.push_back(b);
  }
  return {count, pairs};
}

/// The lowest offset where `size` bytes lie free between the placed neighbours.
int64_t first_fit(std::vector<std::pair<int64_t, int64_t>>& taken, int64_t size) {
  std::sort(taken.begin(), taken.end());
  int64_t offset = 0;
  for (const auto& [begin, end] : taken) {
    if (begin - offset >= size) break;
    offset = std::max(offset, end);
  }
  return offset;
}

void pack_at_hints(std::vector<Candidate>& candidates, const Conflicts& conflicts) {
  std::vector<size_t> by_size(candidates.size());
  std::iota(by_size.begin(), by_size.end(), size_t{0});
  std::stable_sort(by_size.begin(), by_size.end(),
                   [&](size_t a, size_t b) { return candidates[a].size > candidates[b].size; });
  std::vector<bool> placed(candidates.size(), false);
  std::vector<std::pair<int64_t, int64_t>> taken;
  for (size_t id : by_size) {
    taken.clear();
    for (size_t other : conflicts.of(id))
      if (placed[other])
        taken.emplace_back(candidates[other].offset, candidates[other].offset + candidates[other].size);
    candidates[id].offset = first_fit(taken, candidates[id].size);
    placed[id] = true;
  }
}

/// For each candidate, those that it must lie above.
class Below {
 public:
  Below(const std::vector<Candidate>& candidates, const Conflicts& conflicts)
      : candidates_(candidates), conflicts_(conflicts), covered_(candidates.size(), candidates.size()) {}

  /// Conflicting neighbours below `id`, without those that another neighbour already lies on.
  std::vector<BufferId> of(size_t id) {
    under_.clear();
    for_each_under(id, [&](size_t other) { under_.push_back(other); });
    std::sort(under_.begin(), under_.end(),
              [&](size_t a, size_t b) { return candidates_[a].offset > candidates_[b].offset; });
    std::vector<BufferId> kept;
    for (size_t other : under_) {
      if (covered_[other] == id) continue;
      kept.push_back(static_cast<BufferId>(other));
      for_each_under(other, [&](size_t lower) { covered_[lower] = id; });
    }
    std::sort(kept.begin(), kept.end());
    return kept;
  }

 private:
  template <typename Visit>
  void for_each_under(size_t id, Visit visit) const {
    for (size_t other : conflicts_.of(id))
      if (candidates_[other].offset < candidates_[id].offset) visit(other);
  }

  const std::vector<Candidate>& candidates_;
  const Conflicts& conflicts_;
  std::vector<size_t> covered_;  // the last candidate above which a neighbour covers this one
  std::vector<size_t> under_;    // of the candidate at hand
};

}  // namespace

void place_buffers(StoragePlanner& planner, const HappensBefore& order, Plan& plan) {
  std::vector<Candidate> candidates = make_candidates(planner, order, plan);
  const Conflicts conflicts = find_conflicts(candidates, order);
  pack_at_hints(candidates, conflicts);
  Below below(candidates, conflicts);
  std::vector<BufferId> buffers(planner.storages().size(), kNoId);
  for (size_t id = 0; id < candidates.size(); ++id) {
    plan.buffers.push_back({candidates[id].bytes, below.of(id)});
    buffers[candidates[id].storage] = static_cast<BufferId>(id);
  }
  planner.set_buffers(buffers);
}

void place_frees(const StoragePlanner& planner, const HappensBefore& order, Plan& plan) {
  std::vector<std::vector<SlotId>> after_run(plan.runs.size());
  for (const Storage& storage : planner.storages()) {
    if (storage.where != Root::kKernel || storage.accesses.empty()) continue;
    const std::vector<Access> lasts = extremes(storage.accesses, order, false);
    const bool output = std::any_of(plan.outputs.begin(), plan.outputs.end(), [&](const PlanOutput& out) {
      return out.kind == PlanOutput::Kind::kSlot &&
             plan.slots[static_cast<size_t>(out.slot)].root == Root::kKernel &&
             plan.slots[static_cast<size_t>(out.slot)].index == storage.index;
    });
    if (lasts.size() == 1 && !output) after_run[lasts[0].run].push_back(storage.index);
  }
  for (Stream& stream : plan.streams) {
    std::vector<Instruction> code;
    std::vector<SlotId> pending;
    for (const Instruction& instruction : stream.code) {
      // Frees come after the run's record: readers on other streams are not kept waiting for them.
      if (instruction.kind != Instruction::Kind::kRecord)
        for (SlotId slot : std::exchange(pending, {})) code.push_back({Instruction::Kind::kFree, slot});
      code.push_back(instruction);
      if (instruction.kind == Instruction::Kind::kLaunch) pending = after_run[instruction.id];
    }
    for (SlotId slot : pending) code.push_back({Instruction::Kind::kFree, slot});
    stream.code = std::move(code);
  }
}

}  // namespace dynaflow
