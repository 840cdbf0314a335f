#include "proof/mutants.h"

#include <algorithm>
#include <functional>

namespace dynaflow::test {

namespace {

using Kind = Instruction::Kind;

class Maker {
 public:
  explicit Maker(const Plan& plan) : plan_(plan) {}

  std::vector<Mutant> run() {
    for (size_t stream = 0; stream < plan_.streams.size(); ++stream)
      for (size_t at = 0; at < plan_.streams[stream].code.size(); ++at) change_instruction(stream, at);
    for (size_t stream = 0; stream < plan_.streams.size(); ++stream) swap_runs(static_cast<StreamId>(stream));
    for (size_t id = 0; id < plan_.slots.size(); ++id) change_slot(id);
    for (size_t id = 0; id < plan_.buffers.size(); ++id) change_buffer(id);
    return std::move(mutants_);
  }

 private:
  void add(std::string kind, std::string what, const std::function<void(Plan&)>& change) {
    auto changed = std::make_shared<Plan>(plan_);
    change(*changed);
    mutants_.push_back({std::move(kind), std::move(what), std::move(changed)});
  }

  void change_instruction(size_t stream, size_t at) {
    const Instruction own = plan_.streams[stream].code[at];
    if (own.kind == Kind::kLaunch) return;
    const std::string name = own.kind == Kind::kWait ? "wait" : own.kind == Kind::kRecord ? "record" : "free";
    const std::string what = formatted("{} {} at {} of '{}'", name, own.id, at, plan_.streams[stream].name);
    const auto code = [stream](Plan& plan) -> std::vector<Instruction>& { return plan.streams[stream].code; };
    const auto offset = [at](std::vector<Instruction>& list, size_t by) {
      return list.begin() + static_cast<std::ptrdiff_t>(at + by);
    };
    add(name + " deleted", what, [&](Plan& plan) { code(plan).erase(offset(code(plan), 0)); });
    if (own.kind == Kind::kWait)  // not a mistake: it is only redundant
      add("wait doubled", what, [&](Plan& plan) { code(plan).insert(offset(code(plan), 1), own); });
    // A wait that comes later, a record or a free that comes earlier: past one launch.
    const bool later = own.kind == Kind::kWait;
    size_t target = at;
    while (later ? target + 1 < plan_.streams[stream].code.size() : target > 0) {
      target = later ? target + 1 : target - 1;
      if (plan_.streams[stream].code[target].kind == Kind::kLaunch) {
        add(name + " moved", what, [&](Plan& plan) {
          std::vector<Instruction>& list = code(plan);
          list.erase(offset(list, 0));
          list.insert(list.begin() + static_cast<std::ptrdiff_t>(target), own);
        });
        return;
      }
    }
  }

  /// Two neighbours in a stream change places: the order that the stream gave them is lost.
  void swap_runs(StreamId stream) {
    RunId last = kNoId;
    for (RunId run = 0; run < static_cast<RunId>(plan_.runs.size()); ++run) {
      if (plan_.runs[run].stream != stream) continue;
      if (const RunId before = std::exchange(last, run); before != kNoId) {
        const bool both = has_collective(before) && has_collective(run);
        add(both ? "collectives swapped" : "order swapped",
            formatted("'{}' and '{}'", plan_.runs[before].name, plan_.runs[run].name),
            [&](Plan& plan) { std::swap(plan.runs[before], plan.runs[run]); });
      }
    }
  }

  bool has_collective(RunId run) const {
    const std::vector<OpLaunch>& launches = plan_.runs[run].launches;
    return std::any_of(launches.begin(), launches.end(), [&](const OpLaunch& launch) {
      return plan_.op(launch.op).kind == OpKind::kCollective;
    });
  }

  void change_slot(size_t id) {
    for (const int64_t by : {1, -1})
      add("offset shifted", formatted("slot {} by {}", id, by), [&](Plan& plan) {
        TensorMeta moved = plan.slots[id].meta;
        moved.offset = moved.offset + by;
        plan.slots[id].meta = std::move(moved);
      });
  }

  void change_buffer(size_t id) {
    const std::vector<BufferId>& above = plan_.buffers[id].above;
    if (above.empty()) return;
    add("lifetime shortened", formatted("buffer {} no longer above {}", id, above.front()),
        [&](Plan& plan) { plan.buffers[id].above.erase(plan.buffers[id].above.begin()); });
    add("lifetime shortened", formatted("buffer {} no longer above any", id),
        [&](Plan& plan) { plan.buffers[id].above.clear(); });
  }

  const Plan& plan_;
  std::vector<Mutant> mutants_;
};

}  // namespace

std::vector<Mutant> make_mutants(const Plan& plan) { return Maker(plan).run(); }

}  // namespace dynaflow::test
