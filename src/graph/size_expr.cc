#include "dynaflow/size_expr.h"

#include <algorithm>
#include <iterator>
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
  if (x.size() != y.size()) return x.size() < y.size() ? -1 : 1;
  if (a.constant_term() == b.constant_term()) return 0;
  return a.constant_term() < b.constant_term() ? -1 : 1;
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
/// Towards minus infinity, as in Python: the remainder has the divisor's sign.
std::pair<int64_t, int64_t> divide(int64_t a, int64_t b) {
  if (b == 0 || (a == INT64_MIN && b == -1)) throw GraphError(formatted("{} // {} has no value", a, b));
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? std::pair(a / b - 1, rest + b) : std::pair(a / b, rest);
}
int64_t apply(AtomKind kind, int64_t a, int64_t b) {
  switch (kind) {
    case AtomKind::kFloorDiv:
      return divide(a, b).first;
    case AtomKind::kMod:
      return divide(a, b).second;
    case AtomKind::kMax:
      return std::max(a, b);
    case AtomKind::kMin:
      return std::min(a, b);
    case AtomKind::kSymbol:
      break;
  }
  throw InternalError("a symbol has no operands");
}

bool term_before(const Term& a, const Term& b) { return compare_atoms(a.atoms, b.atoms) < 0; }
bool atom_before(const AtomPtr& a, const AtomPtr& b) { return compare(a, b) < 0; }

/// Both sorted lists in one. A merge, so that long sums are read in no more than quadratic time.
template <typename T>
std::vector<T> merged(const std::vector<T>& a, const std::vector<T>& b, bool (*before)(const T&, const T&)) {
  std::vector<T> all;
  all.reserve(a.size() + b.size());
  std::merge(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(all), before);
  return all;
}

/// Sorts, merges terms with equal atoms and drops zeros.
std::vector<Term> normalize(std::vector<Term> terms) {
  if (terms.size() == 1 && terms[0].coefficient != 0) return terms;
  if (!std::is_sorted(terms.begin(), terms.end(), term_before))
    std::sort(terms.begin(), terms.end(), term_before);
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

size_t mixed(size_t hash, size_t value) { return (hash ^ value) * 0x9e3779b97f4a7c15ULL ^ (hash >> 29); }

size_t hash_of(const std::vector<Term>& terms) {
  size_t hash = terms.size();
  for (const Term& term : terms) {
    hash = mixed(hash, static_cast<size_t>(term.coefficient));
    for (const AtomPtr& atom : term.atoms) {
      hash = mixed(mixed(hash, std::hash<std::string>()(atom->name)), static_cast<size_t>(atom->kind));
      for (const SizeExpr& operand : atom->operands) hash = mixed(hash, hash_of(operand));
    }
  }
  return hash;
}

// Every expression within these limits prints as a text that can be read again.
constexpr int64_t kMaxWeight = 512;
constexpr int kMaxDepth = 24;

std::optional<int64_t> fold(AtomKind kind, const SizeExpr& a, const SizeExpr& b) {
  const auto x = a.constant();
  const auto y = b.constant();
  if (!x || !y || ((kind == AtomKind::kFloorDiv || kind == AtomKind::kMod) && *y == 0)) return std::nullopt;
  return apply(kind, *x, *y);
}

}  // namespace

const std::vector<Term> SizeExpr::kNoTerms;

SizeExpr::SizeExpr(int64_t value) : constant_(value) {}
SizeExpr::SizeExpr(int64_t constant, std::vector<Term> terms) : constant_(constant) {
  terms = normalize(std::move(terms));
  if (!terms.empty()) shared_ = std::make_shared<const Shared>(measured(std::move(terms)));
}
SizeExpr::Shared SizeExpr::measured(std::vector<Term> terms) {
  Shared shared;
  for (const Term& term : terms) {
    shared.weight += 1 + static_cast<int64_t>(term.atoms.size());
    for (const AtomPtr& atom : term.atoms)
      for (const SizeExpr& operand : atom->operands) {
        shared.weight += 1 + (operand.shared_ ? operand.shared_->weight : 0);
        shared.depth = std::max(shared.depth, 1 + (operand.shared_ ? operand.shared_->depth : 0));
      }
  }
  if (shared.weight > kMaxWeight || shared.depth > kMaxDepth)
    throw GraphError(
        formatted("a size of {} symbols and terms, {} levels deep; at most {} and {} are possible",
                  shared.weight, shared.depth, kMaxWeight, kMaxDepth));
  shared.hash = hash_of(terms);
  shared.terms = std::move(terms);
  return shared;
}
SizeExpr SizeExpr::from_atom(AtomPtr atom) { return {0, {{1, {std::move(atom)}}}}; }

SizeExpr SizeExpr::symbol(std::string name) {
  auto atom = std::make_shared<Atom>();
  atom->name = std::move(name);
  return from_atom(std::move(atom));
}

SizeExpr SizeExpr::floordiv(const SizeExpr& a, const SizeExpr& b) {
  if (const auto value = fold(AtomKind::kFloorDiv, a, b)) return *value;
  if (auto exact = a.divide_exact(b)) return *exact;
  return from_atom(make_atom(AtomKind::kFloorDiv, {a, b}));
}
SizeExpr SizeExpr::mod(const SizeExpr& a, const SizeExpr& b) {
  if (const auto value = fold(AtomKind::kMod, a, b)) return *value;
  if (a.divide_exact(b)) return 0;
  return from_atom(make_atom(AtomKind::kMod, {a, b}));
}
SizeExpr SizeExpr::max(const SizeExpr& a, const SizeExpr& b) {
  if (const auto value = fold(AtomKind::kMax, a, b)) return *value;
  if (a == b) return a;
  return from_atom(make_atom(AtomKind::kMax, {a, b}));
}
SizeExpr SizeExpr::min(const SizeExpr& a, const SizeExpr& b) {
  if (const auto value = fold(AtomKind::kMin, a, b)) return *value;
  if (a == b) return a;
  return from_atom(make_atom(AtomKind::kMin, {a, b}));
}

SizeExpr operator+(const SizeExpr& a, const SizeExpr& b) {
  const int64_t constant = checked_add(a.constant_, b.constant_);
  if (a.terms().empty() || b.terms().empty()) {
    SizeExpr sum = b.terms().empty() ? a : b;
    sum.constant_ = constant;
    return sum;
  }
  return {constant, merged(a.terms(), b.terms(), term_before)};
}
SizeExpr operator-(const SizeExpr& a, const SizeExpr& b) { return a + b * SizeExpr(-1); }
SizeExpr operator*(const SizeExpr& a, const SizeExpr& b) {
  if (a.terms().empty() && a.constant_ == 1) return b;
  if (b.terms().empty() && b.constant_ == 1) return a;
  if (a.terms().empty() && b.terms().empty()) return checked_mul(a.constant_, b.constant_);
  // Like terms may merge, so more are let pass here than a result may have.
  if (a.terms().size() * b.terms().size() > 4 * static_cast<size_t>(kMaxWeight))
    throw GraphError("a product of sizes has too many terms");
  std::vector<Term> terms;
  terms.reserve((a.terms().size() + 1) * (b.terms().size() + 1) - 1);
  const auto add = [&](int64_t x, int64_t y, const std::vector<AtomPtr>& atoms) {
    if (x != 0 && y != 0) terms.push_back({checked_mul(x, y), atoms});
  };
  for (const Term& x : a.terms()) {
    add(x.coefficient, b.constant_, x.atoms);
    for (const Term& y : b.terms()) add(x.coefficient, y.coefficient, merged(x.atoms, y.atoms, atom_before));
  }
  for (const Term& y : b.terms()) add(a.constant_, y.coefficient, y.atoms);
  return {checked_mul(a.constant_, b.constant_), std::move(terms)};
}

size_t hash_of(const SizeExpr& expr) {
  return mixed(expr.shared_ ? expr.shared_->hash : 0, static_cast<size_t>(expr.constant_));
}
bool operator==(const SizeExpr& a, const SizeExpr& b) {
  if (a.constant_ != b.constant_) return false;
  if (a.shared_ == b.shared_) return true;
  return a.shared_ && b.shared_ && a.shared_->hash == b.shared_->hash && compare(a, b) == 0;
}
bool operator<(const SizeExpr& a, const SizeExpr& b) { return compare(a, b) < 0; }

std::optional<int64_t> SizeExpr::constant() const {
  return terms().empty() ? std::optional(constant_) : std::nullopt;
}
std::optional<std::string> SizeExpr::as_symbol() const {
  if (!is_term()) return std::nullopt;
  const Term& term = terms().front();
  if (term.coefficient != 1 || term.atoms.size() != 1) return std::nullopt;
  const Atom& atom = *term.atoms[0];
  if (atom.kind != AtomKind::kSymbol) return std::nullopt;
  return atom.name;
}

bool SizeExpr::depends_on(std::string_view symbol) const {
  for (const Term& term : terms())
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
  for (const Term& term : terms())
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

SizeExpr SizeExpr::with_symbols(const std::function<SizeExpr(const AtomPtr&)>& replace) const {
  SizeExpr result = constant_;
  for (const Term& term : terms()) {
    SizeExpr product(term.coefficient);
    for (const AtomPtr& atom : term.atoms)
      product = product * (atom->kind == AtomKind::kSymbol
                               ? replace(atom)
                               : rebuild(atom->kind, atom->operands[0].with_symbols(replace),
                                         atom->operands[1].with_symbols(replace)));
    result = result + product;
  }
  return result;
}

SizeExpr SizeExpr::substitute(std::string_view symbol, const SizeExpr& replacement) const {
  if (!depends_on(symbol)) return *this;
  return with_symbols(
      [&](const AtomPtr& atom) { return atom->name == symbol ? replacement : from_atom(atom); });
}

SizeExpr SizeExpr::renamed(const std::function<std::string(std::string_view)>& name_of) const {
  return with_symbols([&](const AtomPtr& atom) { return SizeExpr::symbol(name_of(atom->name)); });
}

std::optional<SizeExpr> SizeExpr::divide_exact(const SizeExpr& divisor) const {
  const auto divides = [](int64_t by, int64_t value) {
    return by != 0 && !(by == -1 && value == INT64_MIN) && value % by == 0;
  };
  if (const auto by = divisor.constant()) {
    std::vector<Term> quotient = terms();
    if (!divides(*by, constant_)) return std::nullopt;
    for (Term& term : quotient) {
      if (!divides(*by, term.coefficient)) return std::nullopt;
      term.coefficient /= *by;
    }
    return SizeExpr(constant_ / *by, std::move(quotient));
  }
  if (!divisor.is_term() || constant_ != 0) return std::nullopt;
  const Term& by = divisor.terms().front();
  SizeExpr quotient;
  for (const Term& term : terms()) {
    if (!divides(by.coefficient, term.coefficient)) return std::nullopt;
    std::vector<AtomPtr> left = term.atoms;
    for (const AtomPtr& atom : by.atoms) {
      const auto found = std::find_if(left.begin(), left.end(),
                                      [&](const AtomPtr& other) { return compare(atom, other) == 0; });
      if (found == left.end()) return std::nullopt;
      left.erase(found);
    }
    const int64_t coefficient = term.coefficient / by.coefficient;
    quotient = quotient + (left.empty() ? SizeExpr(coefficient) : SizeExpr(0, {{coefficient, left}}));
  }
  return quotient;
}

int64_t SizeExpr::evaluate(const std::function<int64_t(std::string_view)>& value_of) const {
  int64_t sum = constant_;
  for (const Term& term : terms()) {
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

}  // namespace dynaflow
