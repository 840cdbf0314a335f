#pragma once
#include <compare>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "dynaflow/text.h"

namespace dynaflow {

/// An integer expression over symbols, kept as a polynomial whose atoms are symbols or floordiv, mod, max and
/// min of expressions. Equal polynomials compare equal. Immutable value; copies share what they hold.
/// Arithmetic throws GraphError on overflow of 64 bits, and when the result would have more than 512 symbols
/// and terms or be nested deeper than 24: a product can be exponentially longer than its factors.
class SizeExpr {
 public:
  SizeExpr(int64_t value = 0);  // NOLINT(google-explicit-constructor): sizes are mostly constants
  static SizeExpr symbol(std::string name);
  static SizeExpr floordiv(const SizeExpr& a, const SizeExpr& b);
  static SizeExpr mod(const SizeExpr& a, const SizeExpr& b);
  static SizeExpr max(const SizeExpr& a, const SizeExpr& b);
  static SizeExpr min(const SizeExpr& a, const SizeExpr& b);

  friend SizeExpr operator+(const SizeExpr& a, const SizeExpr& b);
  friend SizeExpr operator-(const SizeExpr& a, const SizeExpr& b);
  friend SizeExpr operator*(const SizeExpr& a, const SizeExpr& b);
  friend bool operator==(const SizeExpr& a, const SizeExpr& b);
  /// Equal expressions have equal hashes.
  friend size_t hash_of(const SizeExpr& expr);
  friend bool operator<(const SizeExpr& a, const SizeExpr& b);  // an arbitrary total order, for maps

  /// The value when the expression has no symbol.
  std::optional<int64_t> constant() const;
  /// The name when the expression is exactly one symbol.
  std::optional<std::string> as_symbol() const;
  bool depends_on(std::string_view symbol) const;
  /// Every symbol in it, sorted, once each.
  std::vector<std::string> symbols() const;
  /// The expression with `symbol` replaced.
  SizeExpr substitute(std::string_view symbol, const SizeExpr& replacement) const;
  /// The expression with every symbol called what `name_of` says, all at once.
  SizeExpr renamed(const std::function<std::string(std::string_view)>& name_of) const;
  /// this / divisor when that is a polynomial again and `divisor` is one term; none otherwise.
  std::optional<SizeExpr> divide_exact(const SizeExpr& divisor) const;
  /// The value under an assignment. Throws GraphError on division by zero or overflow of int64.
  int64_t evaluate(const std::function<int64_t(std::string_view)>& value_of) const;

  text::Value to_text() const;
  static SizeExpr from_text(const text::Value& value);
  std::string str() const;

  enum class AtomKind : uint8_t { kSymbol, kFloorDiv, kMod, kMax, kMin };
  struct Atom;
  using AtomPtr = std::shared_ptr<const Atom>;
  /// coefficient * product of atoms (sorted, at least one).
  struct Term {
    int64_t coefficient = 0;
    std::vector<AtomPtr> atoms;
  };
  /// All but the constant, sorted by atoms; no two terms have the same atoms, and no coefficient is 0.
  const std::vector<Term>& terms() const { return shared_ ? shared_->terms : kNoTerms; }
  int64_t constant_term() const { return constant_; }

 private:
  SizeExpr(int64_t constant, std::vector<Term> terms);
  static SizeExpr from_atom(AtomPtr atom);
  SizeExpr with_symbols(const std::function<SizeExpr(const AtomPtr&)>& replace) const;
  bool is_term() const { return constant_ == 0 && terms().size() == 1; }
  /// What copies share.
  struct Shared {
    std::vector<Term> terms;
    size_t hash = 0;
    int64_t weight = 0;  // terms and atoms in it
    int depth = 0;       // of atoms in atoms
  };
  using SharedPtr = std::shared_ptr<const Shared>;
  static const std::vector<Term> kNoTerms;
  static Shared measured(std::vector<Term> terms);
  int64_t constant_ = 0;
  SharedPtr shared_;  // null for a constant, so that the many constants need no counting of owners
};

struct SizeExpr::Atom {
  AtomKind kind = AtomKind::kSymbol;
  std::string name;                // kSymbol
  std::vector<SizeExpr> operands;  // the others: two
};

/// Lets equal expressions share what they hold: a graph of equal layers has few distinct sizes. Not
/// thread-safe.
class ExprPool {
 public:
  /// `expr`, or its equal that came first.
  const SizeExpr& share(SizeExpr expr) { return *known_.insert(std::move(expr)).first; }
  void share_all(std::vector<SizeExpr>& exprs) {
    for (SizeExpr& expr : exprs) expr = share(std::move(expr));
  }

 private:
  struct Hash {
    size_t operator()(const SizeExpr& expr) const { return hash_of(expr); }
  };
  std::unordered_set<SizeExpr, Hash> known_;
};

/// Many expressions compiled into one straight-line integer program with shared subexpressions, evaluated
/// once per run. Registers 0..inputs-1 are the symbols. Immutable after compile; evaluate is thread-safe.
class SizeProgram {
 public:
  explicit SizeProgram(std::vector<std::string> symbols);
  /// The register that will hold `expr`. Throws GraphError when it uses an unknown symbol.
  int add(const SizeExpr& expr);
  /// Fills `registers` (resized on first use) from the symbols' values, given in the order of construction.
  void evaluate(const int64_t* symbols, std::vector<int64_t>& registers) const;
  const std::vector<std::string>& symbols() const { return symbols_; }
  int size() const { return static_cast<int>(symbols_.size() + steps_.size()); }

 private:
  static constexpr int kNone = -1;
  enum class Code : uint8_t { kConstant, kAdd, kMul, kFloorDiv, kMod, kMax, kMin };
  struct Step {
    Code code;
    int a;
    int b;
    int64_t constant;
    auto operator<=>(const Step&) const = default;
  };
  int emit(const Step& step);
  int add_term(const SizeExpr::Term& term);
  int add_atom(const SizeExpr::Atom& atom);

  std::vector<std::string> symbols_;
  std::vector<Step> steps_;
  std::vector<std::pair<Step, int>> known_;  // sorted by step
};

}  // namespace dynaflow
