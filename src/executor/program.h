#pragma once
#include <vector>

#include "dynaflow/plan.h"

namespace dynaflow {

/// The code of one stream that has a thread of its own.
struct ThreadProgram {
  StreamId stream = 0;
  Program steps;
};

/// A plan as the executor walks it: one flat list of steps for each thread.
struct Programs {
  Program caller;                      // kHost and kAsync streams, merged in issue order
  std::vector<ThreadProgram> threads;  // one for each kThread stream
  Program serial;                      // launches and frees of all streams, in issue order
  std::vector<RunId> async_runs;       // runs on kAsync streams, ascending
};

/// Compiles a checked plan. Throws PlanError when the caller's thread would wait for an event that it records
/// itself only later.
Programs compile(const Plan& plan);

}  // namespace dynaflow
