#include "torch/prepared.h"

#include <algorithm>

#include "dynaflow/fusion.h"

namespace dynaflow {
namespace {

class Preparation {
 public:
  Preparation(PlanPtr plan, Binder& binder, const Groups& groups, const CompiledKernels& compiled)
      : plan_(*plan),
        binder_(binder),
        groups_(groups),
        compiled_(compiled),
        result_(std::make_shared<Prepared>()) {
    result_->plan = std::move(plan);
  }

  std::shared_ptr<const Prepared> run(std::vector<at::Tensor> constants, const std::string& context_op) {
    result_->constants = std::move(constants);
    if (!context_op.empty() && reads_context())
      result_->enter_context = c10::Dispatcher::singleton().findSchemaOrThrow(context_op.c_str(), "");
    prepare_slots();
    prepare_externals();
    prepare_runs();
    for (const OutputStorage& storage : plan_.output_storage) {
      result_->output_elements.push_back(binder_.reg(storage.elements));
    }
    for (const PlanOutput& output : plan_.outputs) {
      if (output.kind == PlanOutput::Kind::kSize) result_->size_outputs.push_back(binder_.reg(output.size));
    }
    for (const Stream& stream : plan_.streams) {
      result_->threads = result_->threads || stream.kind == StreamKind::kThread;
    }
    count_handoffs();
    return result_;
  }

 private:
  const Value& value(ValueId id) const { return plan_.graph->values.at(static_cast<size_t>(id)); }

  ShapeRegisters registers(const std::vector<SizeExpr>& sizes, const std::vector<SizeExpr>& strides,
                           const SizeExpr& offset) {
    ShapeRegisters shape;
    for (const SizeExpr& size : sizes) shape.sizes.push_back(binder_.reg(size));
    for (const SizeExpr& stride : strides) shape.strides.push_back(binder_.reg(stride));
    shape.offset = binder_.reg(offset);
    return shape;
  }

  void prepare_slots() {
    result_->kernel_views.resize(plan_.slots.size());
    for (size_t i = 0; i < plan_.slots.size(); ++i) {
      const Slot& slot = plan_.slots[i];
      result_->slots.push_back({slot.root, slot.index, scalar_type(value(slot.value).meta->dtype),
                                registers(slot.meta->shape, slot.meta->strides, slot.meta->offset)});
      const auto id = static_cast<SlotId>(i);
      if (slot.root == Root::kArena) result_->arena_slots.push_back(id);
      if (slot.root == Root::kOutput) result_->output_slots.push_back(id);
      if (slot.root != Root::kKernel) continue;
      auto& same_tensor = slot.index == id ? result_->kernel_slots
                                           : result_->kernel_views.at(static_cast<size_t>(slot.index));
      same_tensor.push_back(id);
    }
  }

  bool reads_context() const {
    return std::ranges::any_of(plan_.graph->ops, [](const Op& op) { return op.effects.reads_context; });
  }

  bool is_written(ValueId id) const {
    for (const Op& op : plan_.graph->ops) {
      for (const ValueId written : op.effects.writes) {
        if (storage_root(*plan_.graph, written) == id) return true;
      }
    }
    return false;
  }

  /// The argument's or constant's own value, of which slots with that root are views.
  void prepare_externals() {
    for (ValueId id = 0; id < static_cast<ValueId>(plan_.graph->values.size()); ++id) {
      const Value& origin = value(id);
      if (origin.origin == Origin::kOp) continue;
      const bool constant = origin.origin == Origin::kConstant;
      if (constant) {
        if (static_cast<size_t>(origin.index) >= result_->constants.size()) {
          throw PlanError(formatted("constant '{}' has index {} but {} constants were given", origin.name,
                                    origin.index, result_->constants.size()));
        }
      } else {
        result_->arguments = std::max(result_->arguments, static_cast<size_t>(origin.index) + 1);
      }
      const Root root = constant ? Root::kConstant : Root::kArgument;
      External external{origin.name,
                        origin.index,
                        constant,
                        origin.origin != Origin::kInput,
                        is_written(id),
                        scalar_type(origin.meta->dtype),
                        {},
                        {},
                        {}};
      const TensorMeta meta = whole(origin.meta);
      external.shape = registers(meta.shape, meta.strides, meta.offset);
      for (size_t i = 0; i < plan_.slots.size(); ++i) {
        const Slot& slot = plan_.slots[i];
        if (slot.root != root || slot.index != origin.index) continue;
        (*slot.meta == meta ? external.whole : external.views).push_back(static_cast<SlotId>(i));
      }
      // A parameter that no kernel reads may still have decided what was captured: it is checked.
      if (external.persistent || !external.whole.empty() || !external.views.empty())
        result_->externals.push_back(std::move(external));
    }
  }

  /// Sizes as the whole batch has them, in the terms that slots use.
  TensorMeta whole(TensorMeta meta) const {
    const auto rewrite = [this](SizeExpr& size) {
      size = on_parts(*plan_.graph, size, 0, plan_.cut.parts, plan_.cut.parts);
    };
    for (SizeExpr& size : meta.shape) rewrite(size);
    for (SizeExpr& stride : meta.strides) rewrite(stride);
    rewrite(meta.offset);
    return meta;
  }

  void prepare_runs() {
    CallBuilder builder(plan_, binder_, compiled_, result_->bound);
    for (const Run& run : plan_.runs) {
      const Stream& stream = plan_.streams.at(static_cast<size_t>(run.stream));
      PreparedRun prepared{
          run.name, run.stream, stream.kind == StreamKind::kAsync, 0, {run.first_part, run.last_part}, {}};
      for (const OpLaunch& launch : run.launches) {
        prepared.launches.push_back(prepare_launch(builder, run, launch));
        if (prepared.launches.back().collective) ++prepared.collectives;
      }
      result_->collectives += prepared.collectives;
      result_->runs.push_back(std::move(prepared));
    }
  }

  /// The caller's thread runs every host stream; each other stream is a queue, or a thread, of its own.
  void count_handoffs() {
    std::vector<StreamId> recorded_by(static_cast<size_t>(plan_.events), kNoId);
    const auto runs_it = [this](StreamId id) {
      return plan_.streams[static_cast<size_t>(id)].kind == StreamKind::kHost ? StreamId{0} : id;
    };
    const auto each = [this](Instruction::Kind kind, auto visit) {
      for (StreamId id = 0; id < static_cast<StreamId>(plan_.streams.size()); ++id)
        for (const Instruction& code : plan_.streams[static_cast<size_t>(id)].code)
          if (code.kind == kind) visit(id, static_cast<size_t>(code.id));
    };
    each(Instruction::Kind::kRecord, [&](StreamId id, size_t event) { recorded_by[event] = runs_it(id); });
    each(Instruction::Kind::kWait, [&](StreamId id, size_t event) {
      if (recorded_by[event] != runs_it(id)) ++result_->handoffs;
    });
  }

  PreparedLaunch prepare_launch(CallBuilder& builder, const Run& run, const OpLaunch& launch) {
    const Op& op = plan_.op(launch.op);
    const bool collective = op.kind == OpKind::kCollective;
    const bool compiled = is_compiled(op);
    PreparedLaunch prepared{builder.build(run, launch, is_told(launch.delivery) && !collective),
                            launch.op,
                            formatted("{} in {}", op.target, op.module),
                            launch.delivery,
                            static_cast<size_t>(launch.op) >= plan_.graph->ops.size() && !compiled,
                            op.effects.reads_context && result_->enter_context,
                            launch.outputs,
                            std::nullopt,
                            nullptr};
    if (op.effects.reads_context && !result_->enter_context && plan_.cut.parts > 1) {
      throw PlanError(
          formatted("op '{}' reads the host's state, and nothing gives the host that of a part", op.name));
    }
    if (collective) {
      prepared.collective = collective_kind(op);
      prepared.group = group(op);
      if (launch.outputs.size() != 1 || launch.outputs[0] == kNoId) {
        throw PlanError(
            formatted("op '{}' ({}): a collective needs a slot for its result", op.name, op.target));
      }
    } else if (launch.delivery == Delivery::kInPlace) {
      prepared.outputs.clear();
    } else if (launch.delivery == Delivery::kFresh) {
      keep_fresh_outputs(prepared);
    }
    return prepared;
  }

  /// An op that returns its input (add_) has nothing new to keep.
  void keep_fresh_outputs(PreparedLaunch& launch) const {
    for (SlotId& slot : launch.outputs) {
      if (slot == kNoId) continue;
      const Slot& made = plan_.slots.at(static_cast<size_t>(slot));
      if (made.root != Root::kKernel || made.index != slot) slot = kNoId;
    }
    if (std::ranges::all_of(launch.outputs, [](SlotId slot) { return slot == kNoId; }))
      launch.outputs.clear();
  }

  std::shared_ptr<Group> group(const Op& op) {
    const auto found = groups_.find(op.group);
    if (found == groups_.end()) {
      throw PlanError(
          formatted("op '{}' uses group '{}', which was not added to the runtime", op.name, op.group));
    }
    auto& used = result_->groups;
    if (std::ranges::find(used, found->second) == used.end()) used.push_back(found->second);
    return found->second;
  }

  const Plan& plan_;
  Binder& binder_;
  const Groups& groups_;
  const CompiledKernels& compiled_;
  std::shared_ptr<Prepared> result_;
};

}  // namespace

std::shared_ptr<const Prepared> prepare(PlanPtr plan, Binder& binder, std::vector<at::Tensor> constants,
                                        const Groups& groups, const CompiledKernels& compiled,
                                        const std::string& context_op) {
  return Preparation(std::move(plan), binder, groups, compiled).run(std::move(constants), context_op);
}

}  // namespace dynaflow
