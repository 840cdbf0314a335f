#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dynaflow/plan.h"

namespace dynaflow {

/// One use of bytes by one launch, as a counterexample shows it.
struct Use {
  RunId run = kNoId;  // kNoId: the caller, before or after the run; or a free
  std::string what;   // "'mb0/layers.3.mlp' (aten.mm.default) writes %a on stream 'compute'"
  bool operator==(const Use&) const = default;
};

/// Why a plan is wrong: two uses of overlapping bytes, and what is missing between them.
struct Violation {
  enum class Kind : uint8_t {
    kRace,         // nothing orders two uses of the same bytes, of which one writes
    kOverwritten,  // bytes are read after something else was written over them
    kUnwritten,    // bytes are read that nothing has been written to
    kStale,        // bytes are read before, or after, an in-place change that they should show
    kFreed,        // a tensor is used after it was freed, or freed twice
    kGeometry,     // a slot does not lie where its value does, leaves its storage, or is of other parts than
                   // the run that uses it
    kDeadlock,     // a wait can never end
    kOrder,        // collectives of one group, random draws, or reads of the host's state, in an order that
                   // may vary
    kRanks,        // two ranks issue other collectives, or the same in another order
  };
  Kind kind = Kind::kRace;
  Use first;  // empty where there is only one
  Use second;
  std::string message;  // all of it, for people
};
std::string_view kind_name(Violation::Kind kind);

/// Proves that a plan is right whatever its streams' timing: every two uses of overlapping bytes, one of
/// which writes, are ordered by streams and events; every read sees what its producer wrote; nothing is used
/// after it was freed; every wait has its record and can end; collectives of one group, random draws and
/// reads of the host's state have one order. Vector clocks over the streams give the order (Fidge 1988,
/// Mattern 1989), kept for the last write and the reads since (as in FastTrack, Flanagan and Freund 2009).
/// Returns the first counterexample in issue order, or none. The plan must have passed check().
std::optional<Violation> verify(const Plan& plan);

/// One launch of a collective, as its peers have to see it too.
struct CollectiveCall {
  std::string group;
  std::string what;  // "_c10d_functional.all_reduce.default #3 float32[p0, 16] parts 0:1 of 2"
};
/// A plan's collectives in issue order.
std::vector<CollectiveCall> collective_order(const Plan& plan);

/// Whether ranks would issue the same collectives in the same order in each group, given each rank's plan.
std::optional<Violation> verify_ranks(std::span<const PlanPtr> plans);

/// verify() as a check. Throws PlanError with the counterexample.
void check_verified(const Plan& plan);

}  // namespace dynaflow
