#pragma once
#include <vector>

namespace dynaflow {

/// The cores that the calling thread may use, in ascending order.
std::vector<int> thread_cores();
/// Binds the calling thread to these cores. Throws ExecutionError where the system has none of them.
void bind_thread(const std::vector<int>& cores);
/// For each thread, given the cores it may use: whether it shares none of them with another.
std::vector<bool> have_own_cores(const std::vector<std::vector<int>>& threads);

}  // namespace dynaflow
