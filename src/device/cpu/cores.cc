#include "device/cpu/cores.h"

#include <fmt/ranges.h>
#include <sched.h>

#include <cerrno>
#include <cstring>
#include <map>

#include "dynaflow/base.h"

namespace dynaflow {

std::vector<int> thread_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  return cores;
}

void bind_thread(const std::vector<int>& cores) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int core : cores)
    if (core >= 0 && core < CPU_SETSIZE) CPU_SET(core, &set);
  if (sched_setaffinity(0, sizeof(set), &set) != 0)
    throw ExecutionError(formatted("the stream's thread cannot use the cores [{}]: {}",
                                   fmt::join(cores, ", "), std::strerror(errno)));
}

std::vector<bool> have_own_cores(const std::vector<std::vector<int>>& threads) {
  std::map<int, int> users;
  for (const std::vector<int>& cores : threads)
    for (int core : cores) ++users[core];
  std::vector<bool> result;
  for (const std::vector<int>& cores : threads) {
    bool own = !cores.empty();
    for (int core : cores) own = own && users[core] == 1;
    result.push_back(own);
  }
  return result;
}

}  // namespace dynaflow
