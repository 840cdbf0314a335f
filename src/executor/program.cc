#include "executor/program.h"

namespace dynaflow {

namespace {

using Kind = Instruction::Kind;

void check_order(const Plan& plan, const Program& program) {
  std::vector<bool> own(static_cast<size_t>(plan.events), false);
  for (const Step& step : program)
    if (step.kind == Kind::kRecord) own[step.id] = true;
  for (const Step& step : program) {
    if (step.kind == Kind::kRecord) own[step.id] = false;
    if (step.kind == Kind::kWait && own[step.id])
      throw PlanError(formatted("stream '{}' waits for event {} before the same thread records it",
                                plan.streams[step.stream].name, step.id));
  }
}

/// An asynchronous stream reaches a free when its work has ended, which the issuing thread learns by a wait
/// on a host stream: the free moves behind the first such wait. Without one it is left to the end of the run.
Program defer_frees(const Plan& plan, const Program& program) {
  struct Free {
    Step step;
    RunId after;
  };
  std::vector<RunId> last(plan.streams.size(), kNoId);
  std::vector<std::pair<StreamId, RunId>> recorded(static_cast<size_t>(plan.events), {kNoId, kNoId});
  std::vector<Free> pending;
  Program result;
  for (const Step& step : program) {
    const bool async = plan.streams[step.stream].kind == StreamKind::kAsync;
    if (step.kind == Kind::kLaunch) last[step.stream] = step.id;
    if (step.kind == Kind::kRecord) recorded[step.id] = {step.stream, last[step.stream]};
    if (step.kind == Kind::kFree && async) {
      pending.push_back({step, last[step.stream]});
      continue;
    }
    result.push_back(step);
    if (step.kind != Kind::kWait || async) continue;
    const std::pair<StreamId, RunId> reached = recorded[step.id];
    std::erase_if(pending, [&](const Free& free) {
      const bool ended = free.step.stream == reached.first && free.after <= reached.second;
      if (ended) result.push_back(free.step);
      return ended;
    });
  }
  return result;
}

}  // namespace

Programs compile(const Plan& plan) {
  Programs programs;
  programs.caller =
      merge_streams(plan, [](const Stream& stream) { return stream.kind != StreamKind::kThread; });
  check_order(plan, programs.caller);
  programs.caller = defer_frees(plan, programs.caller);
  programs.serial = merge_streams(plan, [](const Stream&) { return true; });
  std::erase_if(programs.serial,
                [](const Step& step) { return step.kind == Kind::kWait || step.kind == Kind::kRecord; });
  for (StreamId id = 0; id < static_cast<StreamId>(plan.streams.size()); ++id) {
    if (plan.streams[id].kind != StreamKind::kThread) continue;
    ThreadProgram thread{.stream = id, .steps = {}};
    for (const Instruction& code : plan.streams[id].code) thread.steps.push_back({code.kind, id, code.id});
    programs.threads.push_back(std::move(thread));
  }
  for (const Step& step : programs.caller)
    if (step.kind == Kind::kLaunch && plan.streams[step.stream].kind == StreamKind::kAsync)
      programs.async_runs.push_back(step.id);
  return programs;
}

}  // namespace dynaflow
