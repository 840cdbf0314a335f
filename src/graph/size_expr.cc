#include "dynaflow/size_expr.h"

#include <algorithm>
#include <map>

namespace dynaflow {

namespace {

using Term = SizeExpr::Term;
using AtomPtr = SizeExpr::AtomPtr;
using AtomKind = SizeExpr::AtomKind;

int compare(const SizeExpr& a, const SizeExpr& b);

int compare(const AtomPtr& a, const AtomPtr& b) {
  if (a == b) return 0;
  if (a->kind != b->kind) return a->kind < b->kind ? -1 : 1;
  if (a->kind == AtomKind::kSymbol) return a->name.compare(b->name);
  for (size_t i = 0; i < 2; ++i)
    if (const int order = compare(a->operands[i], b->operands[i]); order != 0) return order;
  return 0;
}

int compare_atoms(const std::vector<AtomPtr>& a, const std::vector<AtomPtr>& b) {
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    if (const int order = compare(a[i], b[i]); order != 0) return order;
  return a.size() == b.size() ? 0 : (a.size() < b.size() ? -1 : 1);
}

int compare(const SizeExpr& a, const SizeExpr& b) {
  const auto& x = a.terms();
  const auto& y = b.terms();
  for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
    if (const int order = compare_atoms(x[i].atoms, y[i].atoms); order != 0) return order;
    if (x[i].coefficient != y[i].coefficient) return x[i].coefficient < y[i].coefficient ? -1 : 1;
  }
  return x.size() == y.size() ? 0 : (x.size() < y.size() ? -1 : 1);
}

int64_t checked_add(int64_t a, int64_t b) {
  int64_t result = 0;
  if (__builtin_add_overflow(a, b, &result)) throw GraphError(formatted("{} + {} overflows 64 bits", a, b));
  return result;
}
int64_t checked_mul(int64_t a, int64_t b) {
  int64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result)) throw GraphError(formatted("{} * {} overflows 64 bits", a, b));
  return result;
}
int64_t floor_div(int64_t a, int64_t b) {
  if (b == 0 || (a == INT64_MIN && b == -1)) throw GraphError(formatted("{} // {} has no value", a, b));
  const int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}
int64_t apply(AtomKind kind, int64_t a, int64_t b) {
  switch (kind) {
    case AtomKind::kFloorDiv:
      return floor_div(a, b);
    case AtomKind::kMod:
      return a - floor_div(a, b) * b;
    case AtomKind::kMax:
      return std::max(a, b);
    case AtomKind::kMin:
      return std::min(a, b);
    case AtomKind::kSymbol:
      break;
  }
  throw InternalError("a symbol has no operands");
}

/// Sorts, merges terms with equal atoms and drops zeros.
std::vector<Term> normalize(std::vector<Term> terms) {
  std::sort(terms.begin(), terms.end(),
            [](const Term& a, const Term& b) { return compare_atoms(a.atoms, b.atoms) < 0; });
  std::vector<Term> result;
  for (Term& term : terms) {
    if (!result.empty() && compare_atoms(result.back().atoms, term.atoms) == 0) {
      result.back().coefficient = checked_add(result.back().coefficient, term.coefficient);
    } else {
      result.push_back(std::move(term));
    }
    if (result.back().coefficient == 0) result.pop_back();
  }
  return result;
}

AtomPtr make_atom(AtomKind kind, std::vector<SizeExpr> operands) {
  auto atom = std::make_shared<SizeExpr::Atom>();
  atom->kind = kind;
  atom->operands = std::move(operands);
  return atom;
}

constexpr std::pair<AtomKind, const char*> kAtomNames[] = {
    {AtomKind::kFloorDiv, "//"}, {AtomKind::kMod, "%"}, {AtomKind::kMax, "max"}, {AtomKind::kMin, "min"}};

text::Value atom_to_text(const SizeExpr::Atom& atom) {
  if (atom.kind == AtomKind::kSymbol) return text::Value::identifier(atom.name);
  for (const auto& [kind, name] : kAtomNames)
    if (kind == atom.kind)
      return text::Value::call(name, {atom.operands[0].to_text(), atom.operands[1].to_text()});
  throw InternalError("unknown kind of atom");
}

text::Value term_to_text(const Term& term) {
  std::optional<text::Value> product;
  if (term.coefficient != 1 || term.atoms.empty()) product = text::Value::integral(term.coefficient);
  for (const AtomPtr& atom : term.atoms) {
    text::Value factor = atom_to_text(*atom);
    product = product ? text::Value::call("*", {std::move(*product), std::move(factor)}) : std::move(factor);
  }
  return *product;
}

}  // namespace

SizeExpr::SizeExpr(int64_t value) {
  if (value != 0) terms_.push_back({value, {}});
}
SizeExpr::SizeExpr(AtomPtr atom) { terms_.push_back({1, {std::move(atom)}}); }
SizeExpr::SizeExpr(std::vector<Term> terms) : terms_(normalize(std::move(terms))) {}

SizeExpr SizeExpr::symbol(std::string name) {
  auto atom = std::make_shared<Atom>();
  atom->name = std::move(name);
  return SizeExpr(AtomPtr(std::move(atom)));
}

namespace {
std::optional<int64_t> fold(AtomKind kind, const SizeExpr& a, const SizeExpr& b) {
  const auto x = a.constant();
  const auto y = b.constant();
  if (!x || !y || ((kind == AtomKind::kFloorDiv || kind == AtomKind::kMod) && *y == 0)) return std::nullopt;
  return apply(kind, *x, *y);
}
}  // namespace

SizeExpr SizeExpr::floordiv(const SizeExpr& a, const SizeExpr& b) {
  if (const auto value = fold(AtomKind::kFloorDiv, a, b)) return *value;
  if (auto exact = a.divide_exact(b)) return *exact;
  return SizeExpr(make_atom(AtomKind::kFloorDiv, {a, b}));
}
SizeExpr SizeExpr::mod(const SizeExpr& a, const SizeExpr& b) {
  if (const auto value = fold(AtomKind::kMod, a, b)) return *value;
  if (a.divide_exact(b)) return 0;
  return SizeExpr(make_atom(AtomKind::kMod, {a, b}));
}
SizeExpr SizeExpr::max(const SizeExpr& a, const SizeExpr& b) {
  if (const auto value = fold(AtomKind::kMax, a, b)) return *value;
  if (a == b) return a;
  return SizeExpr(make_atom(AtomKind::kMax, {a, b}));
}
SizeExpr SizeExpr::min(const SizeExpr& a, const SizeExpr& b) {
  if (const auto value = fold(AtomKind::kMin, a, b)) return *value;
  if (a == b) return a;
  return SizeExpr(make_atom(AtomKind::kMin, {a, b}));
}

SizeExpr operator+(const SizeExpr& a, const SizeExpr& b) {
  std::vector<SizeExpr::Term> terms = a.terms_;
  terms.insert(terms.end(), b.terms_.begin(), b.terms_.end());
  return SizeExpr(std::move(terms));
}
SizeExpr operator-(const SizeExpr& a, const SizeExpr& b) { return a + b * SizeExpr(-1); }
SizeExpr operator*(const SizeExpr& a, const SizeExpr& b) {
  std::vector<SizeExpr::Term> terms;
  for (const Term& x : a.terms_) {
    for (const Term& y : b.terms_) {
      Term product{checked_mul(x.coefficient, y.coefficient), x.atoms};
      product.atoms.insert(product.atoms.end(), y.atoms.begin(), y.atoms.end());
      std::sort(product.atoms.begin(), product.atoms.end(),
                [](const AtomPtr& p, const AtomPtr& q) { return compare(p, q) < 0; });
      terms.push_back(std::move(product));
    }
  }
  return SizeExpr(std::move(terms));
}
bool operator==(const SizeExpr& a, const SizeExpr& b) { return compare(a, b) == 0; }
bool operator<(const SizeExpr& a, const SizeExpr& b) { return compare(a, b) < 0; }

std::optional<int64_t> SizeExpr::constant() const {
  if (terms_.empty()) return 0;
  if (terms_.size() == 1 && terms_[0].atoms.empty()) return terms_[0].coefficient;
  return std::nullopt;
}
std::optional<std::string> SizeExpr::as_symbol() const {
  if (terms_.size() != 1 || terms_[0].coefficient != 1 || terms_[0].atoms.size() != 1) return std::nullopt;
  const Atom& atom = *terms_[0].atoms[0];
  if (atom.kind != AtomKind::kSymbol) return std::nullopt;
  return atom.name;
}

bool SizeExpr::depends_on(std::string_view symbol) const {
  for (const Term& term : terms_)
    for (const AtomPtr& atom : term.atoms) {
      if (atom->kind == AtomKind::kSymbol
              ? atom->name == symbol
              : atom->operands[0].depends_on(symbol) || atom->operands[1].depends_on(symbol))
        return true;
    }
  return false;
}

std::vector<std::string> SizeExpr::symbols() const {
  std::vector<std::string> names;
  for (const Term& term : terms_)
    for (const AtomPtr& atom : term.atoms) {
      if (atom->kind == AtomKind::kSymbol) {
        names.push_back(atom->name);
        continue;
      }
      for (const SizeExpr& operand : atom->operands)
        for (std::string& name : operand.symbols()) names.push_back(std::move(name));
    }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

namespace {
SizeExpr rebuild(AtomKind kind, const SizeExpr& a, const SizeExpr& b) {
  switch (kind) {
    case AtomKind::kFloorDiv:
      return SizeExpr::floordiv(a, b);
    case AtomKind::kMod:
      return SizeExpr::mod(a, b);
    case AtomKind::kMax:
      return SizeExpr::max(a, b);
    default:
      return SizeExpr::min(a, b);
  }
}
}  // namespace

SizeExpr SizeExpr::substitute(std::string_view symbol, const SizeExpr& replacement) const {
  if (!depends_on(symbol)) return *this;
  SizeExpr result;
  for (const Term& term : terms_) {
    SizeExpr product(term.coefficient);
    for (const AtomPtr& atom : term.atoms) {
      if (atom->kind == AtomKind::kSymbol) {
        product = product * (atom->name == symbol ? replacement : SizeExpr(atom));
      } else {
        product = product * rebuild(atom->kind, atom->operands[0].substitute(symbol, replacement),
                                    atom->operands[1].substitute(symbol, replacement));
      }
    }
    result = result + product;
  }
  return result;
}

std::optional<SizeExpr> SizeExpr::divide_exact(const SizeExpr& divisor) const {
  if (divisor.terms_.size() != 1) return std::nullopt;
  const Term& by = divisor.terms_[0];
  std::vector<Term> quotient;
  for (const Term& term : terms_) {
    if (term.coefficient % by.coefficient != 0) return std::nullopt;
    Term left{term.coefficient / by.coefficient, term.atoms};
    for (const AtomPtr& atom : by.atoms) {
      const auto found = std::find_if(left.atoms.begin(), left.atoms.end(),
                                      [&](const AtomPtr& other) { return compare(atom, other) == 0; });
      if (found == left.atoms.end()) return std::nullopt;
      left.atoms.erase(found);
    }
    quotient.push_back(std::move(left));
  }
  return SizeExpr(std::move(quotient));
}

int64_t SizeExpr::evaluate(const std::function<int64_t(std::string_view)>& value_of) const {
  int64_t sum = 0;
  for (const Term& term : terms_) {
    int64_t product = term.coefficient;
    for (const AtomPtr& atom : term.atoms) {
      const int64_t factor =
          atom->kind == AtomKind::kSymbol
              ? value_of(atom->name)
              : apply(atom->kind, atom->operands[0].evaluate(value_of), atom->operands[1].evaluate(value_of));
      product = checked_mul(product, factor);
    }
    sum = checked_add(sum, product);
  }
  return sum;
}

text::Value SizeExpr::to_text() const {
  if (const auto value = constant()) return text::Value::integral(*value);
  std::optional<text::Value> sum;
  // Symbolic terms first reads better: s0 - 1, not -1 + s0. Terms sort the constant first.
  std::vector<Term> ordered(terms_.begin(), terms_.end());
  if (ordered.front().atoms.empty()) std::rotate(ordered.begin(), ordered.begin() + 1, ordered.end());
  for (Term& term : ordered) {
    if (!sum) {
      sum = term_to_text(term);
      continue;
    }
    const bool negative = term.coefficient < 0 && term.coefficient != INT64_MIN;
    if (negative) term.coefficient = -term.coefficient;
    sum = text::Value::call(negative ? "-" : "+", {std::move(*sum), term_to_text(term)});
  }
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
  for (const auto& [kind, name] : kAtomNames)
    if (value.name == name) return rebuild(kind, a, b);
  value.fail("one of + - * // % max min");
}

std::string SizeExpr::str() const { return text::print(to_text()); }

}  // namespace dynaflow
