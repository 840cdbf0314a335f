#pragma once
#include <string>
#include <vector>

namespace dynaflow::testing {

/// A case is a story in text: a graph, how to cut and schedule it, and what must come out.
///
///   graph:     the graph
///   sizes:     sizes() {s0=8}                    the batch the plan is made for; default: the hints
///   cut:       func("all_reduce") {tags=["network"]}, module(...), mark(...) lines
///   schedule:  a strategy with options, or `script()` with split(...) and run(segment, first, last, stream)
///   lines
/// and any of
///   segments:  segment("name", ["op", ...]) {form=split}      all of them; reason= a part of the text; then
///              independent("name", ["op", ...])               the regions of rows_independent=true in `cut`
///   layouts:   %x = shard(0)                                  some of them
///   code:      compute("mm[0]", record(0), ...)               each stream's instructions
///   above:     memory() {arena=bytes}                         at the case's sizes
///   unmatched: near("pattern", ["near miss", ...])
///   error:     ScheduleError("a part of the message", ...)
/// Every product that is made is also printed, read back and compared.
/// Returns what differs, empty when nothing does.
std::vector<std::string> run_case(const std::string& path);

}  // namespace dynaflow::testing
