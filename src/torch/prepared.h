#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dynaflow/plan.h"
#include "torch/call.h"
#include "torch/group.h"

namespace dynaflow {

using Groups = std::map<std::string, std::shared_ptr<Group>>;  // by the graph's name of the group

/// Registers of a tensor's sizes, strides and offset in elements.
struct ShapeRegisters {
  std::vector<int> sizes;
  std::vector<int> strides;
  int offset = 0;
};

struct PreparedSlot {
  Root root = Root::kArena;
  int32_t index = kNoId;
  c10::ScalarType dtype = c10::ScalarType::Float;
  ShapeRegisters shape;
};

/// A tensor that comes from outside: an argument of the caller or a constant of the capture.
struct External {
  std::string name;
  int32_t index = 0;  // among the caller's arguments, or among the constants
  bool constant = false;
  bool persistent = false;  // expected to be the same tensor in the next run
  bool written = false;     // the plan changes it in place
  c10::ScalarType dtype = c10::ScalarType::Float;
  ShapeRegisters shape;       // as captured: what the caller must pass
  std::vector<SlotId> whole;  // slots that are the tensor itself
  std::vector<SlotId> views;  // slots that are parts or views of it
};

/// One launch, ready to be called.
struct PreparedLaunch {
  Call call;
  OpId op = kNoId;
  std::string label;  // "aten.mm.default in model.layers.0.mlp", for a MemoryLog
  Delivery delivery = Delivery::kFresh;
  bool replaces = false;                     // a user's kernel: its results are checked in every run
  bool reads_context = false;                // the host's state must be that of the run's parts
  std::vector<SlotId> outputs;               // kFresh: those to fill; kCopy: to copy into; kOut: written
  std::optional<CollectiveKind> collective;  // not a dispatcher call
  std::shared_ptr<Group> group;
};

struct PreparedRun {
  std::string name;
  StreamId stream = 0;
  bool asynchronous = false;  // its stream keeps completions
  int collectives = 0;
  PartRange parts = {0, 1};
  std::vector<PreparedLaunch> launches;
};

/// A plan with its operators found, its arguments converted and its sizes in registers. Immutable once made;
/// shared by all frames.
struct Prepared {
  PlanPtr plan;
  std::vector<PreparedSlot> slots;
  std::vector<External> externals;
  std::vector<at::Tensor> constants;
  std::vector<BoundValue> bound;
  std::vector<PreparedRun> runs;
  std::vector<SlotId> arena_slots;
  std::vector<SlotId> output_slots;
  std::vector<SlotId> kernel_slots;               // made by a kernel, not views of one
  std::vector<std::vector<SlotId>> kernel_views;  // by SlotId of a kernel-made tensor: the slots that view it
  std::vector<int> output_elements;               // registers, by output storage
  std::vector<int> size_outputs;                  // registers, of the plan's size outputs in order
  std::vector<std::shared_ptr<Group>> groups;     // that the plan's collectives use
  // What gives the host the state of some parts, where an op reads it: (int step, int first, int last) -> ().
  std::optional<c10::OperatorHandle> enter_context;
  int collectives = 0;   // launched by one run of the plan
  int handoffs = 0;      // waits of one run for what another thread or queue does
  size_t arguments = 0;  // that the caller must pass
  bool threads = false;  // a stream has a thread of its own
};

/// `compiled` and `context_op`: see Runtime. Throws PlanError naming the op that torch cannot run, or the
/// group or kernel that was not added.
std::shared_ptr<const Prepared> prepare(PlanPtr plan, Binder& binder, std::vector<at::Tensor> constants,
                                        const Groups& groups, const CompiledKernels& compiled,
                                        const std::string& context_op);

}  // namespace dynaflow
