#include "dynaflow/size_expr.h"

// Sizes as text: s0 // 2 + 1.

namespace dynaflow {

namespace {

using Term = SizeExpr::Term;
using AtomPtr = SizeExpr::AtomPtr;
using AtomKind = SizeExpr::AtomKind;

struct NamedAtom {
  AtomKind kind;
  const char* name;
  SizeExpr (*make)(const SizeExpr&, const SizeExpr&);
};
constexpr NamedAtom kNamedAtoms[] = {{AtomKind::kFloorDiv, "//", SizeExpr::floordiv},
                                     {AtomKind::kMod, "%", SizeExpr::mod},
                                     {AtomKind::kMax, "max", SizeExpr::max},
                                     {AtomKind::kMin, "min", SizeExpr::min}};

text::Value atom_to_text(const SizeExpr::Atom& atom) {
  if (atom.kind == AtomKind::kSymbol) return text::Value::identifier(atom.name);
  for (const NamedAtom& named : kNamedAtoms)
    if (named.kind == atom.kind)
      return text::Value::call(named.name, {atom.operands[0].to_text(), atom.operands[1].to_text()});
  throw InternalError("unknown kind of atom");
}

text::Value term_to_text(const Term& term) {
  std::optional<text::Value> product;
  if (term.coefficient != 1) product = text::Value::integral(term.coefficient);
  for (const AtomPtr& atom : term.atoms) {
    text::Value factor = atom_to_text(*atom);
    product = product ? text::Value::infix("*", std::move(*product), std::move(factor)) : std::move(factor);
  }
  return *product;
}

}  // namespace

text::Value SizeExpr::to_text() const {
  if (const auto value = constant()) return text::Value::integral(*value);
  std::optional<text::Value> sum;
  const auto append = [&](int64_t coefficient, const auto& to_value) {
    const bool negative = sum && coefficient < 0 && coefficient != INT64_MIN;
    text::Value next = to_value(negative ? -coefficient : coefficient);
    sum = sum ? text::Value::infix(negative ? "-" : "+", std::move(*sum), std::move(next)) : std::move(next);
  };
  for (const Term& term : terms())
    append(term.coefficient, [&](int64_t by) { return term_to_text({by, term.atoms}); });
  // Symbolic terms first reads better: s0 - 1, not -1 + s0.
  if (constant_ != 0) append(constant_, text::Value::integral);
  return *sum;
}

SizeExpr SizeExpr::from_text(const text::Value& value) {
  using Kind = text::Value::Kind;
  if (value.kind == Kind::kInt) return value.integer;
  if (value.kind == Kind::kName) return symbol(value.name);
  if (value.kind != Kind::kCall || value.items.size() != 2)
    value.fail("a size: an integer or an expression of symbols");
  const SizeExpr a = from_text(value.items[0]);
  const SizeExpr b = from_text(value.items[1]);
  if (value.name == "+") return a + b;
  if (value.name == "-") return a - b;
  if (value.name == "*") return a * b;
  for (const NamedAtom& named : kNamedAtoms)
    if (value.name == named.name) return named.make(a, b);
  value.fail("one of + - * // % max min");
}

std::string SizeExpr::str() const { return text::print(to_text()); }

}  // namespace dynaflow
