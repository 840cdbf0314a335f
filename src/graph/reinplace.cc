#include <algorithm>
#include <array>
#include <set>
#include <string_view>

#include "dynaflow/graph.h"

namespace dynaflow {

namespace {

constexpr std::string_view kCopy = "aten.copy.default";
constexpr std::string_view kCopyInPlace = "aten.copy_.default";

/// Ops that write only some elements: out of place, the rest is copied first.
constexpr std::array<std::string_view, 12> kPartialWriters = {
    "aten.index_copy.default",     "aten.index_put.default",  "aten.index_add.default",
    "aten.index_fill.int_Scalar",  "aten.scatter.src",        "aten.scatter.value",
    "aten.scatter_add.default",    "aten.scatter_reduce.two", "aten.masked_fill.Scalar",
    "aten.masked_scatter.default", "aten.masked_fill.Tensor", "aten.index_fill.int_Tensor"};

/// Ops that return their argument 0 with argument 1 in one slice of it, and the view of that slice.
constexpr std::array<std::pair<std::string_view, std::string_view>, 2> kScatters = {
    {{"aten.slice_scatter.default", "aten.slice.Tensor"},
     {"aten.select_scatter.default", "aten.select.int"}}};

const ValueRef* reference(const Op& op, size_t index) {
  return index < op.args.size() ? std::get_if<ValueRef>(&op.args[index].data) : nullptr;
}

/// Each step changes one op, and leaves a graph that computes the same.
class Reinplacer {
 public:
  explicit Reinplacer(Graph graph)
      : graph_(std::move(graph)), readers_(graph_.values.size()), inserted_(graph_.ops.size()) {
    for (OpId id = 0; id < static_cast<OpId>(graph_.ops.size()); ++id)
      for (ValueId input : op_inputs(graph_.ops[id])) readers_[root(input)].push_back(id);
    for (const Arg& output : graph_.outputs)
      if (const auto* ref = std::get_if<ValueRef>(&output.data)) outputs_.insert(ref->id);
  }

  Graph run() {
    const auto count = static_cast<OpId>(graph_.ops.size());
    for (OpId id = 0; id < count; ++id)
      if (graph_.ops[id].target == kCopyInPlace) absorb(id);
    for (OpId id = 0; id < count; ++id) reuse_dying(id);
    insert_ops();
    return std::move(graph_);
  }

 private:
  ValueId root(ValueId value) const { return storage_root(graph_, value); }
  const TensorMeta& meta(ValueId value) const { return graph_.values[value].meta; }

  bool is_output(ValueId value) const {
    return std::any_of(outputs_.begin(), outputs_.end(), [&](ValueId id) { return root(id) == root(value); });
  }

  /// An op in (first, last) reads the storage, or changes it. Views do neither.
  bool used_between(ValueId storage, OpId first, OpId last) const {
    const std::vector<OpId>& readers = readers_[storage];
    return std::any_of(readers.begin(), readers.end(), [&](OpId id) {
      return id > first && id < last && graph_.ops[id].kind != OpKind::kView;
    });
  }
  bool used_after(ValueId storage, OpId position) const {
    return used_between(storage, position, static_cast<OpId>(graph_.ops.size()));
  }

  bool changed_after(ValueId storage, OpId position) const {
    return std::any_of(readers_[storage].begin(), readers_[storage].end(), [&](OpId id) {
      const std::vector<ValueId>& writes = graph_.ops[id].effects.writes;
      return id > position && std::any_of(writes.begin(), writes.end(),
                                          [&](ValueId written) { return root(written) == storage; });
    });
  }

  /// From now on `value` lies in `place`.
  void lay(ValueId value, ValueId place) {
    std::vector<OpId>& readers = readers_[root(place)];
    readers.insert(readers.end(), readers_[value].begin(), readers_[value].end());
    graph_.values[value].alias_of = place;
  }

  void write(OpId id, ValueId place) {
    Op& op = graph_.ops[id];
    op.effects.writes = {place};
    readers_[root(place)].push_back(id);
    lay(op.outputs[0], place);
  }

  /// Whether both are the same elements of one storage.
  bool same_place(ValueId a, ValueId b) const { return root(a) == root(b) && meta(a) == meta(b); }

  /// What `value` is made by, if it is the only result and has its own storage.
  OpId maker(ValueId value) const {
    const Value& made = graph_.values[value];
    if (made.origin != Origin::kOp || made.alias_of != kNoId) return kNoId;
    const Op& op = graph_.ops[made.op];
    return op.kind != OpKind::kOpaque && op.outputs.size() == 1 ? made.op : kNoId;
  }

  /// copy_(place, value): makes `value` in `place`, and leaves a view of it.
  void absorb(OpId copy) {
    const ValueRef* place = reference(graph_.ops[copy], 0);
    const ValueRef* value = reference(graph_.ops[copy], 1);
    if (place == nullptr || value == nullptr || graph_.ops[copy].outputs.size() != 1) return;
    const ValueId to = place->id;
    if (!(meta(to) == meta(value->id)) || changed_after(root(to), copy)) return;
    if (!store(to, root(value->id), copy)) return;
    Op& op = graph_.ops[copy];
    op.functional = {};
    op.effects.writes.clear();
    make_view(copy, to);
  }

  /// Lets the op that makes `value` write it to `place` instead of a tensor of its own. `last` is the op that
  /// would put it there; in between nothing may look at what `place` held before.
  bool store(ValueId place, ValueId value, OpId last) {
    const OpId id = maker(value);
    if (id == kNoId || id >= last || is_output(value) || !(meta(place) == meta(value))) return false;
    if (!defined_before(place, id) || used_between(root(place), id, last)) return false;
    const Op& op = graph_.ops[id];
    if (op.kind == OpKind::kCollective) return reduce_in_place(place, id);
    return scatter(place, id) || change_in_place(place, id) || write_out(place, id);
  }

  bool defined_before(ValueId value, OpId id) const {
    return graph_.values[value].origin != Origin::kOp || graph_.values[value].op < id;
  }

  /// all_reduce(place)
  bool reduce_in_place(ValueId place, OpId id) {
    Op& op = graph_.ops[id];
    const ValueRef* reduced = reference(op, 0);
    if (short_target(op.target) != "all_reduce" || reduced == nullptr || !same_place(reduced->id, place))
      return false;
    if (meta(place).strides != contiguous_strides(meta(place).shape)) return false;
    op.functional = op.target;
    write(id, place);
    return true;
  }

  /// f(x, ...) -> f_(place, ...), where x is what `place` holds.
  bool change_in_place(ValueId place, OpId id) {
    const Op& op = graph_.ops[id];
    const ValueRef* changed = reference(op, 0);
    if (op.inplace_target.empty() || changed == nullptr) return false;
    const ValueId before = changed->id;
    if (reads_besides_first(op, root(place)) || reads_besides_first(op, root(before))) return false;
    if (op.target != kCopy && !held(place, before, id)) return false;
    make_in_place(id, place);
    return true;
  }

  /// Whether `place` holds what `last` reads as `value`, or can be made to: `last` is then the last to read
  /// it.
  bool held(ValueId place, ValueId value, OpId last) {
    return same_place(value, place) || (!used_after(root(value), last) && store(place, value, last));
  }

  bool reads_besides_first(const Op& op, ValueId storage) const {
    const std::vector<ValueId> inputs = op_inputs(op);
    return std::any_of(inputs.begin() + 1, inputs.end(), [&](ValueId id) { return root(id) == storage; });
  }

  void make_in_place(OpId id, ValueId place) {
    Op& op = graph_.ops[id];
    op.functional = std::exchange(op.target, std::exchange(op.inplace_target, {}));
    op.out_target = {};
    op.args[0] = {ValueRef{place}};
    write(id, place);
  }

  /// f(...) -> f.out(..., out=place)
  bool write_out(ValueId place, OpId id) {
    Op& op = graph_.ops[id];
    if (op.out_target.empty()) return false;
    for (ValueId input : op_inputs(op))
      if (root(input) == root(place)) return false;
    op.functional = std::exchange(op.target, std::exchange(op.out_target, {}));
    op.inplace_target = {};
    op.args.push_back({ValueRef{place}});
    write(id, place);
    return true;
  }

  /// slice_scatter(x, y, ...), where x is what `place` holds -> y made in slice(place, ...), or copied there.
  bool scatter(ValueId place, OpId id) {
    const Op& op = graph_.ops[id];
    const auto form =
        std::find_if(kScatters.begin(), kScatters.end(), [&](const auto& f) { return f.first == op.target; });
    const ValueRef* whole = reference(op, 0);
    const ValueRef* part = reference(op, 1);
    if (form == kScatters.end() || whole == nullptr || part == nullptr) return false;
    if (!held(place, whole->id, id)) return false;
    const ValueId slice = find_view(form->second, place, op);
    const ValueId made = part->id;
    if (slice == kNoId || root(made) == root(place)) return false;
    if (!store_slice(slice, made, id)) insert_copy(slice, made, id);
    make_view(id, place);
    return true;
  }

  /// Makes `made` in the slice, if only the scatter reads it: its strides may then be those of the slice.
  bool store_slice(ValueId slice, ValueId made, OpId scatter) {
    const SharedMeta before = graph_.values[made].meta;
    const SharedMeta& wanted = graph_.values[slice].meta;
    if (readers_[root(made)] != std::vector<OpId>{scatter} || wanted->dtype != before->dtype ||
        wanted->shape != before->shape)
      return false;
    graph_.values[made].meta = wanted;
    if (store(slice, made, scatter)) return true;
    graph_.values[made].meta = before;
    return false;
  }

  /// The view of `place` that takes the arguments of the scatter after its first two.
  ValueId find_view(std::string_view target, ValueId place, const Op& scatter) const {
    for (const Op& op : graph_.ops) {
      if (&op == &scatter) break;
      const ValueRef* source = reference(op, 0);
      if (op.target != target || op.kind != OpKind::kView || op.outputs.size() != 1 || source == nullptr)
        continue;
      if (!same_place(source->id, place) || op.args.size() + 1 != scatter.args.size()) continue;
      if (std::equal(op.args.begin() + 1, op.args.end(), scatter.args.begin() + 2)) return op.outputs[0];
    }
    return kNoId;
  }

  void insert_copy(ValueId place, ValueId source, OpId before) {
    const Op& scatter = graph_.ops[before];
    Op copy;
    copy.name = scatter.name + ".copy";
    copy.target = std::string(kCopyInPlace);
    copy.functional = std::string(kCopy);
    copy.args = {{ValueRef{place}}, {ValueRef{source}}, {false}};
    copy.outputs = {static_cast<ValueId>(graph_.values.size())};
    copy.effects.writes = {place};
    copy.module = scatter.module;
    copy.module_type = scatter.module_type;
    copy.marks = scatter.marks;
    graph_.values.push_back({copy.name, meta(place), Origin::kOp, 0, before, place});
    readers_.emplace_back();
    readers_[root(place)].push_back(before);
    inserted_[before].push_back(std::move(copy));
  }

  void make_view(OpId id, ValueId place) {
    Op& op = graph_.ops[id];
    op.target = "aten.alias.default";
    op.kind = OpKind::kView;
    op.args = {{ValueRef{place}}};
    op.out_target = {};
    op.inplace_target = {};
    if (graph_.values[op.outputs[0]].alias_of == kNoId) lay(op.outputs[0], place);
  }

  /// f(x, ...), which changes some elements of an x that nobody reads again -> f_(x, ...)
  void reuse_dying(OpId id) {
    const Op& op = graph_.ops[id];
    const ValueRef* first = reference(op, 0);
    if (first == nullptr || op.inplace_target.empty() || op.outputs.size() != 1) return;
    if (std::find(kPartialWriters.begin(), kPartialWriters.end(), op.target) == kPartialWriters.end()) return;
    const ValueId dying = first->id;
    if (maker(dying) == kNoId || is_output(dying) || !(meta(dying) == meta(op.outputs[0]))) return;
    if (graph_.values[op.outputs[0]].alias_of != kNoId || used_after(dying, id)) return;
    if (!reads_besides_first(op, dying)) make_in_place(id, dying);
  }

  void insert_ops() {
    std::vector<Op> ops;
    for (size_t id = 0; id < graph_.ops.size(); ++id) {
      for (Op& op : inserted_[id]) ops.push_back(std::move(op));
      ops.push_back(std::move(graph_.ops[id]));
    }
    if (ops.size() != graph_.ops.size()) number_by_definition(ops);
    graph_.ops = std::move(ops);
  }

  /// Text names values in the order of their definition, and reading it numbers them so.
  void number_by_definition(std::vector<Op>& ops) {
    std::vector<Value> values;
    std::vector<ValueId> number(graph_.values.size(), kNoId);
    const auto define = [&](ValueId id) {
      number[id] = static_cast<ValueId>(values.size());
      values.push_back(std::move(graph_.values[id]));
    };
    for (ValueId id = 0; id < static_cast<ValueId>(number.size()); ++id)
      if (graph_.values[id].origin != Origin::kOp) define(id);
    for (OpId id = 0; id < static_cast<OpId>(ops.size()); ++id) {
      for (ValueId& output : ops[id].outputs) {
        define(output);
        output = number[output];
        values[output].op = id;
      }
      for (Arg& arg : ops[id].args) renumber(arg, number);
      for (ValueId& written : ops[id].effects.writes) written = number[written];
    }
    for (Value& value : values)
      if (value.alias_of != kNoId) value.alias_of = number[value.alias_of];
    for (Arg& output : graph_.outputs) renumber(output, number);
    graph_.values = std::move(values);
  }

  static void renumber(Arg& arg, const std::vector<ValueId>& number) {
    if (auto* ref = std::get_if<ValueRef>(&arg.data)) ref->id = number[ref->id];
    if (auto* list = std::get_if<ArgList>(&arg.data))
      for (Arg& item : *list) renumber(item, number);
  }

  Graph graph_;
  std::vector<std::vector<OpId>> readers_;  // by storage root
  std::vector<std::vector<Op>> inserted_;   // by OpId: ops to come before it
  std::set<ValueId> outputs_;
};

}  // namespace

Graph reinplace(Graph graph) { return Reinplacer(std::move(graph)).run(); }

}  // namespace dynaflow
