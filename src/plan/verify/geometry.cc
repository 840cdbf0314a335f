#include "plan/verify/geometry.h"

#include <algorithm>

namespace dynaflow {

namespace {

bool never_negative(const SizeExpr& expr);

bool never_negative(const SizeExpr::Atom& atom) {
  const auto& operands = atom.operands;
  switch (atom.kind) {
    case SizeExpr::AtomKind::kSymbol:
      return true;
    case SizeExpr::AtomKind::kMax:
      return never_negative(operands[0]) || never_negative(operands[1]);
    case SizeExpr::AtomKind::kMod:
      return never_negative(operands[1]);
    case SizeExpr::AtomKind::kFloorDiv:
    case SizeExpr::AtomKind::kMin:
      return never_negative(operands[0]) && never_negative(operands[1]);
  }
  return false;
}

/// Shown term by term; symbols are sizes, which are never negative.
bool never_negative(const SizeExpr& expr) {
  const auto& terms = expr.terms();
  return expr.constant_term() >= 0 && std::all_of(terms.begin(), terms.end(), [](const SizeExpr::Term& term) {
           return term.coefficient >= 0 &&
                  std::all_of(term.atoms.begin(), term.atoms.end(),
                              [](const auto& atom) { return never_negative(*atom); });
         });
}

SizeExpr simplified(const SizeExpr& expr);

SizeExpr simplified(const SizeExpr::Atom& atom) {
  using Kind = SizeExpr::AtomKind;
  if (atom.kind == Kind::kSymbol) return SizeExpr::symbol(atom.name);
  const SizeExpr a = simplified(atom.operands[0]);
  const SizeExpr b = simplified(atom.operands[1]);
  if (atom.kind == Kind::kFloorDiv) return SizeExpr::floordiv(a, b);
  if (atom.kind == Kind::kMod) return SizeExpr::mod(a, b);
  const bool greatest = atom.kind == Kind::kMax;
  if (never_negative(a - b)) return greatest ? a : b;
  if (never_negative(b - a)) return greatest ? b : a;
  return greatest ? SizeExpr::max(a, b) : SizeExpr::min(a, b);
}

/// Without the maxima and minima of which one side is surely the greater.
SizeExpr simplified(const SizeExpr& expr) {
  SizeExpr result = expr.constant_term();
  for (const SizeExpr::Term& term : expr.terms()) {
    SizeExpr product = term.coefficient;
    for (const SizeExpr::AtomPtr& atom : term.atoms) product = product * simplified(*atom);
    result = result + product;
  }
  return result;
}

}  // namespace

SizeExpr Geometry::on(const SizeExpr& expr, PartRange range) const {
  return on_parts(*plan_.graph, expr, range.first, range.second, plan_.cut.parts);
}

SizeExpr Geometry::elements(ValueId value, PartRange range) const {
  return on(storage_elements(plan_.graph->values[value].meta), range);
}

SizeExpr Geometry::bytes(ValueId value, PartRange range) const {
  return elements(value, range) * item_size(plan_.graph->values[value].meta->dtype);
}

bool Geometry::has_rows(ValueId value) const {
  const std::vector<SizeExpr>& shape = plan_.graph->values[value].meta->shape;
  return std::any_of(shape.begin(), shape.end(),
                     [&](const SizeExpr& size) { return size.depends_on(plan_.graph->batch_symbol); });
}

/// The one dimension whose size follows the batch, or kNoId.
int Geometry::batch_dim(const TensorMeta& meta) const {
  int found = kNoId;
  for (size_t dim = 0; dim < meta.shape.size(); ++dim) {
    if (!meta.shape[dim].depends_on(plan_.graph->batch_symbol)) continue;
    if (found != kNoId) return kNoId;
    found = static_cast<int>(dim);
  }
  return found;
}

std::string Geometry::problem(const Slot& slot, PartRange held) const {
  const TensorMeta& meta = plan_.graph->values[slot.value].meta;
  const PartRange own{slot.first_part, slot.last_part};
  if (slot.meta->shape.size() != meta.shape.size()) return "it has another number of dimensions";
  for (size_t dim = 0; dim < meta.shape.size(); ++dim) {
    if (!(slot.meta->shape[dim] == on(meta.shape[dim], own)))
      return formatted("its size in dimension {} is {}, not {}", dim, slot.meta->shape[dim].str(),
                       on(meta.shape[dim], own).str());
    if (!(slot.meta->strides[dim] == on(meta.strides[dim], held)))
      return formatted("its stride in dimension {} is {}, not {}", dim, slot.meta->strides[dim].str(),
                       on(meta.strides[dim], held).str());
  }
  SizeExpr offset = on(meta.offset, held);
  if (own != held) {
    const int dim = batch_dim(meta);
    if (dim == kNoId) return "it has no dimension whose rows could be those of some parts";
    const auto batch = static_cast<size_t>(dim);
    if (own.first > held.first)
      offset = offset + on(meta.shape[batch], {held.first, own.first}) * slot.meta->strides[batch];
  }
  if (!(slot.meta->offset == offset))
    return formatted("its offset is {}, not {}", slot.meta->offset.str(), offset.str());
  return slot.root == Root::kArgument || slot.root == Root::kConstant ? "" : share_problem(slot, held);
}

/// A slot keeps to the rows of its own parts, so that slots of other parts are elsewhere.
std::string Geometry::share_problem(const Slot& slot, PartRange held) const {
  const ValueId root = storage_root(*plan_.graph, slot.value);
  const bool from_first = slot.first_part == held.first || !has_rows(root);
  const SizeExpr begin = from_first ? 0 : elements(root, {held.first, slot.first_part});
  const SizeExpr end = elements(root, {held.first, slot.last_part});
  SizeExpr last = slot.meta->offset;
  for (size_t dim = 0; dim < slot.meta->shape.size(); ++dim)
    last = last + (slot.meta->shape[dim] - 1) * slot.meta->strides[dim];
  if (at_least(slot.meta->offset, begin) && at_least(end, last + 1)) return "";
  return formatted("its elements {} to {} are not those of its rows, {} up to {}", slot.meta->offset.str(),
                   last.str(), begin.str(), end.str());
}

bool Geometry::at_least(const SizeExpr& a, const SizeExpr& b) const {
  const SizeExpr difference = a - b;
  return never_negative(difference) || never_negative(above_minimum(difference));
}

/// The expression with the batch as the sum of its parts, and with each symbol standing for what it has above
/// its least value.
SizeExpr Geometry::above_minimum(SizeExpr expr) const {
  const Graph& graph = *plan_.graph;
  if (plan_.cut.parts > 1) {
    SizeExpr rows;
    for (int part = 0; part < plan_.cut.parts; ++part) rows = rows + SizeExpr::symbol(part_symbol(part));
    expr = expr.substitute(graph.batch_symbol, rows);
    for (int part = 0; part < plan_.cut.parts; ++part)
      expr = expr.substitute(part_symbol(part), SizeExpr::symbol(part_symbol(part)) + plan_.cut.min_rows);
  }
  for (const Symbol& symbol : graph.symbols) {
    const SizeExpr above = symbol.min == symbol.max ? SizeExpr(0) : SizeExpr::symbol(symbol.name);
    expr = expr.substitute(symbol.name, above + symbol.min);
  }
  return simplified(expr);
}

}  // namespace dynaflow
