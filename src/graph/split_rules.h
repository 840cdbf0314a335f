#pragma once
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "dynaflow/layout.h"

/// The rule table of split safety. docs/split-safety.md says how to add a rule.
namespace dynaflow::split {

/// What a rule may ask about one op. Arguments that are missing read as none, so that no rule can fail on an
/// op with fewer arguments than its schema has; it refuses instead.
class RuleContext {
 public:
  /// `rows`: the batch symbol as a size; it must outlive this. `coordinates`: whether the rule tells row
  /// numbers from other sharded values.
  RuleContext(const Graph& graph, const Op& op, const std::vector<Layout>& layouts, const SizeExpr& rows,
              bool coordinates)
      : graph_(graph), op_(op), layouts_(layouts), rows_(rows), coordinates_(coordinates) {}

  const Op& op() const { return op_; }
  /// The rows of the batch, as a size.
  const SizeExpr& rows() const { return rows_; }
  bool depends(const SizeExpr& size) const { return size.depends_on(graph_.batch_symbol); }

  Layout layout(ValueId value) const;
  const TensorMeta& meta(ValueId value) const { return graph_.values[value].meta; }
  const std::vector<SizeExpr>& shape(ValueId value) const { return meta(value).shape; }
  int rank(ValueId value) const { return static_cast<int>(shape(value).size()); }
  const std::string& name(ValueId value) const { return graph_.values[value].name; }
  const TensorMeta& out(size_t index = 0) const { return meta(op_.outputs[index]); }
  int out_rank(size_t index = 0) const { return rank(op_.outputs[index]); }

  /// The argument, or none.
  const Arg& arg(size_t index) const;
  /// The tensor that is argument `index`.
  std::optional<ValueId> tensor(size_t index) const;
  /// The tensors in the list that is argument `index`.
  std::vector<ValueId> tensors(size_t index) const;
  /// The size or integer that is argument `index`.
  std::optional<SizeExpr> size(size_t index) const;
  /// The sizes in the list that is argument `index`; none when something else is in it.
  std::optional<std::vector<SizeExpr>> sizes(size_t index) const;
  /// The constant integer that is argument `index`.
  std::optional<int64_t> integer(size_t index) const;
  bool flag(size_t index) const;
  /// The dimension that argument `index` names, counted from the front; none when it names none of `rank`.
  std::optional<int> dim(size_t index, int rank) const;
  /// The dimensions that argument `index` (a list or one) names; all of them when it is none or empty.
  std::optional<std::vector<int>> dims(size_t index, int rank) const;
  /// Whether the argument is a size, or holds one, that depends on the batch.
  bool argument_depends(size_t index) const;

 private:
  const Graph& graph_;
  const Op& op_;
  const std::vector<Layout>& layouts_;
  const SizeExpr& rows_;
  bool coordinates_;
};

/// Either the layout of each output, or why the op cannot be split. An output that is kMixed is accepted only
/// where nobody reads it.
struct RuleResult {
  std::vector<Layout> layouts;
  std::string refusal;

  bool accepted() const { return refusal.empty(); }
};
RuleResult refuse(std::string why);
/// The same layout for every output.
RuleResult accept(const RuleContext& context, const Layout& layout);

/// The result with outputs from `first` on marked as rows of no part: nobody may read them.
RuleResult without_rows_from(size_t first, RuleResult result);

using Rule = std::function<RuleResult(const RuleContext&)>;

/// What a rule looks after itself. Without these, an op with an argument that depends on the batch is
/// refused, and row numbers that it reads are made true ones before the rule sees them.
struct Traits {
  bool sizes = false;        // checks the arguments that depend on the batch
  bool coordinates = false;  // keeps kCoordinate through, uses it as an index, or never reads the values
};

/// Targets that share a rule.
struct RuleGroup {
  Rule rule;
  Traits traits;
  std::vector<std::string_view> targets;
};

std::vector<RuleGroup> pointwise_rules();
/// Of these, the targets that compute each element of one result from the elements at its place.
std::vector<std::string_view> pointwise_targets();
std::vector<RuleGroup> shape_rules();
std::vector<RuleGroup> split_shape_rules();
std::vector<RuleGroup> matmul_rules();
std::vector<RuleGroup> reduce_rules();
std::vector<RuleGroup> index_rules();
std::vector<RuleGroup> collective_rules();
std::vector<RuleGroup> image_rules();

/// All families, by target.
class RuleTable {
 public:
  RuleTable();
  RuleTable(const RuleTable&) = delete;
  RuleTable& operator=(const RuleTable&) = delete;
  /// The group that holds `target`, or null.
  const RuleGroup* find(std::string_view target) const;
  std::vector<std::string> targets() const;

 private:
  std::vector<RuleGroup> groups_;
  std::unordered_map<std::string_view, const RuleGroup*> by_target_;
};

/// A dimension that an op mixes, or drops: its rows do not stay apart.
inline constexpr int kLost = -1;

/// A tensor argument and where its dimensions go: to[d] is the result's dimension, or kLost.
struct Operand {
  ValueId value = kNoId;
  std::vector<int> to;
};
/// Dimensions that go to the same place.
Operand same(const RuleContext& context, ValueId value);
/// Dimensions aligned from the right with those of a result of `rank` dimensions, as broadcasting does.
Operand aligned(const RuleContext& context, ValueId value, int rank);

/// The layout of a result whose row depends on the same row of each sharded operand, and on all of each whole
/// one: every sharded operand must bring the batch to the same dimension with the same factors, and a whole
/// one must have nothing, or one element to broadcast, along that dimension.
RuleResult combine(const RuleContext& context, const std::vector<Operand>& operands);

/// The layout of argument 0 with its dimension moved to to[dim]; row numbers stay row numbers.
RuleResult relabel(const RuleContext& context, const std::vector<int>& to);

/// The layout that a shape suggests: whole without the symbol, shard where one dimension is rows * inner.
Layout infer_layout(const std::vector<SizeExpr>& shape, std::string_view symbol);

SizeExpr product(const std::vector<SizeExpr>& sizes, size_t first, size_t last);
/// a / b where that is exact; also where b has several terms and equals a.
std::optional<SizeExpr> quotient(const SizeExpr& a, const SizeExpr& b);

}  // namespace dynaflow::split
