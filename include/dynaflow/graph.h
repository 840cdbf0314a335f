#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include "dynaflow/name.h"
#include "dynaflow/size_expr.h"
#include "dynaflow/text.h"

namespace dynaflow {

using OpId = int32_t;     // index in Graph::ops
using ValueId = int32_t;  // index in Graph::values
inline constexpr int32_t kNoId = -1;

/// Element types, named as in PyTorch.
enum class DType : uint8_t {
  kBool,
  kUInt8,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kFloat16,
  kBFloat16,
  kFloat32,
  kFloat64,
  kComplex64,
  kComplex128,
};
int64_t item_size(DType dtype);  // bytes
std::string_view dtype_name(DType dtype);
/// Throws GraphError listing the known names.
DType dtype_from_name(std::string_view name);

/// A dynamic size. `hint` is the value seen at capture; plans are packed for it but hold for every value.
struct Symbol {
  std::string name;
  int64_t min = 0;
  int64_t max = INT64_MAX;
  int64_t hint = 0;
  int32_t input = kNoId;  // the caller's argument that carries it as an integer, if one does

  bool operator==(const Symbol&) const = default;
};

/// What is known of a tensor before it exists. Sizes and strides in elements.
struct TensorMeta {
  DType dtype = DType::kFloat32;
  std::vector<SizeExpr> shape;
  std::vector<SizeExpr> strides;
  SizeExpr offset;

  bool operator==(const TensorMeta&) const = default;
};
/// A TensorMeta that tensors which are alike share: a graph of equal layers has few different ones. An
/// immutable value; compares as what it holds.
class SharedMeta {
 public:
  SharedMeta() : SharedMeta(TensorMeta()) {}
  SharedMeta(TensorMeta meta)  // NOLINT(google-explicit-constructor): it is a meta
      : meta_(std::make_shared<const TensorMeta>(std::move(meta))) {}
  const TensorMeta& operator*() const { return *meta_; }
  const TensorMeta* operator->() const { return meta_.get(); }
  operator const TensorMeta&() const { return *meta_; }  // NOLINT(google-explicit-constructor)
  bool operator==(const SharedMeta& other) const { return meta_ == other.meta_ || *meta_ == *other.meta_; }

 private:
  std::shared_ptr<const TensorMeta> meta_;
};

/// Lets equal metas share what they hold. Not thread-safe.
class MetaPool {
 public:
  const SharedMeta& share(SharedMeta meta) { return *known_.insert(std::move(meta)).first; }

 private:
  struct Hash {
    size_t operator()(const SharedMeta& meta) const;
  };
  std::unordered_set<SharedMeta, Hash> known_;
};

/// The strides of a dense row-major tensor of that shape.
std::vector<SizeExpr> contiguous_strides(const std::vector<SizeExpr>& shape);
/// How many elements a storage must have to hold a tensor from its first on: the product of the sizes, or
/// more where its strides leave gaps.
SizeExpr storage_elements(const TensorMeta& meta);

/// Where a value comes from.
enum class Origin : uint8_t {
  kInput,      // the caller's argument `index`, another tensor at every call
  kParameter,  // the caller's argument `index`, the same tensor call after call
  kConstant,   // a tensor lifted at capture; `index` in the capture's list
  kOp,         // output `index` of op `op`
};

struct Value {
  std::string name;
  SharedMeta meta;
  Origin origin = Origin::kOp;
  int32_t index = 0;
  OpId op = kNoId;
  ValueId alias_of = kNoId;  // the value whose storage it shares (one step up), or kNoId

  bool operator==(const Value&) const = default;
};

struct Arg;
using ArgList = std::vector<Arg>;

/// An argument that names something of the host framework: dtype(float32), device(cpu), layout(strided)...
struct NamedConstant {
  Name kind;
  Name name;
  bool operator==(const NamedConstant&) const = default;
};
struct ValueRef {
  ValueId id = kNoId;
  bool operator==(const ValueRef&) const = default;
};

/// One argument of a dispatcher call. Integers are SizeExpr, also when they are constants.
struct Arg {
  std::variant<std::monostate, bool, SizeExpr, double, std::string, ValueRef, NamedConstant, ArgList> data;
  bool operator==(const Arg&) const = default;
};

enum class OpKind : uint8_t {
  kCompute,     // a kernel
  kView,        // output shares its input's storage; nothing is launched
  kCollective,  // a kernel over a process group
  kOpaque,      // a call that needs the Python interpreter
};

/// What an op does beyond computing its outputs.
struct Effects {
  std::vector<ValueId> writes;  // values it changes in place
  bool random = false;          // draws from the random generator
  bool host_sync = false;       // makes the host wait for the device
  bool reads_context = false;   // reads per-batch state of the host system

  bool any() const { return !writes.empty() || random || host_sync || reads_context; }
  bool operator==(const Effects&) const = default;
};

/// One dispatcher call.
struct Op {
  std::string name;     // unique in the graph
  Name target;          // "aten.mm.default"
  Name out_target;      // "aten.mm.out" where a true out= overload exists, else empty
  Name inplace_target;  // "aten.relu_.default" where the same call can change argument 0, else empty
  // Of an op that changes an argument: "aten.relu.default", which computes what it writes from the same
  // leading arguments. Empty where there is none.
  Name functional;
  OpKind kind = OpKind::kCompute;
  ArgList args;  // all of the schema's arguments, in its order, defaults included
  std::vector<ValueId> outputs;
  Effects effects;
  Name group;                      // kCollective: the process group's name
  Name module;                     // path of the module that called it: "model.layers.3.mlp"
  Name module_type;                // its class and its ancestors', outermost first, separated by '/'
  std::vector<std::string> marks;  // from df.mark(...)
  // The host's word that a part's rows of what it makes and writes need only the part's rows of what it
  // reads.
  bool by_rows = false;

  bool operator==(const Op&) const = default;
};

/// Two sizes that the graph takes for equal; checked in every run.
struct SizeEquality {
  SizeExpr left;
  SizeExpr right;
  bool operator==(const SizeEquality&) const = default;
};

/// What the model computes: ops in program order, each use after its definition. Immutable once built.
struct Graph {
  std::string name;
  std::vector<Symbol> symbols;
  std::vector<Value> values;
  std::vector<Op> ops;
  std::vector<Arg> outputs;  // values, sizes or none, in the order that the caller expects
  std::vector<SizeEquality> guards;
  std::string batch_symbol;  // the symbol that micro-batches split, or empty
  SizeExpr tokens;           // rows of work in a batch: batch, or batch * sequence

  bool operator==(const Graph&) const = default;
  const Symbol* find_symbol(std::string_view symbol_name) const;
};
using GraphPtr = std::shared_ptr<const Graph>;

/// The value that owns the storage: follows alias_of to its end.
ValueId storage_root(const Graph& graph, ValueId value);
/// Values an op reads, in argument order, lists flattened; a value may occur twice.
std::vector<ValueId> op_inputs(const Op& op);
/// op_inputs() of every op of a graph, side by side in memory: for stages that go over the ops repeatedly.
class OpInputs {
 public:
  explicit OpInputs(const Graph& graph);
  std::span<const ValueId> operator[](OpId op) const {
    return std::span(values_).subspan(first_[op], first_[op + 1] - first_[op]);
  }

 private:
  std::vector<size_t> first_;  // by OpId, and the end of all
  std::vector<ValueId> values_;
};
/// "all_reduce" for "_c10d_functional.all_reduce.default": the name that SplitFunc patterns match.
std::string_view short_target(std::string_view target);

/// By OpId: whether the op computes each element of its result from the elements at the same place of its
/// tensors, so that its kernel may write over one of them that lies as the result does.
std::vector<bool> elementwise_ops(const Graph& graph);
/// The targets of such ops, sorted.
std::vector<std::string> elementwise_targets();

/// By OpId: whether a compiler makes loops of the op that it can fuse with its neighbours': element by
/// element, or a reduction along a dimension, or a copy.
std::vector<bool> fusible_ops(const Graph& graph);

/// Part of a graph as a graph of its own, the same text wherever the part occurs: `inputs` become its inputs,
/// `outputs` its outputs, values and symbols are numbered, names, modules and marks are gone. Views of what
/// is made inside come along. `ops`: that launch something, in program order.
Graph extract(const Graph& graph, const std::vector<OpId>& ops, const std::vector<ValueId>& inputs,
              const std::vector<ValueId>& outputs);

/// Applies what schemas do not say: ops that return their input's storage though the schema calls it fresh
/// (_unsafe_view, wait_tensor), and copies of a waited collective back into its source, which are the
/// collective's result itself. Returns the corrected graph. The table is in src/graph/corrections.cc.
Graph apply_corrections(Graph graph);

/// Lets ops change bytes in place where a functional graph makes a copy only to keep old contents that nobody
/// reads again: updates of the caller's tensors (KV caches), which functionalisation writes as a new tensor
/// and a copy_ back at the end, and updates of a few rows of a tensor that dies there. The ops become their
/// in-place or out= forms on the storage itself, scatters into slices of it become copies into views. Same
/// results; a pure function.
Graph reinplace(Graph graph);

/// Throws GraphError when a use precedes its definition, an id is out of range, a name occurs twice or a size
/// uses an unknown symbol.
void check(const Graph& graph);

/// An argument's text, its values named by `name_of`; and back, with `lookup` for values; equal names share
/// their text in `names`.
text::Value arg_to_text(const Arg& arg, const std::function<std::string(ValueId)>& name_of);
Arg arg_from_text(const text::Value& value, const std::function<ValueId(const text::Value&)>& lookup,
                  NamePool& names);

/// Text form; parse_graph(print(g)) == g.
text::Section to_text(const Graph& graph);
Graph graph_from_text(const text::Section& section);
std::string print(const Graph& graph);
/// Reads a document with one `graph:` section, applies no corrections, and checks it.
Graph parse_graph(std::string_view source);

}  // namespace dynaflow
