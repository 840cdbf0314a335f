#include <algorithm>

#include "dynaflow/size_expr.h"

namespace dynaflow {

SizeProgram::SizeProgram(std::vector<std::string> symbols) : symbols_(std::move(symbols)) {}

int SizeProgram::emit(const Step& step) {
  const auto at = std::lower_bound(known_.begin(), known_.end(), step,
                                   [](const auto& entry, const Step& key) { return entry.first < key; });
  if (at != known_.end() && at->first == step) return at->second;
  const int result = size();
  known_.insert(at, {step, result});
  steps_.push_back(step);
  return result;
}

int SizeProgram::add_atom(const SizeExpr::Atom& atom) {
  using AtomKind = SizeExpr::AtomKind;
  if (atom.kind == AtomKind::kSymbol) {
    const auto found = std::find(symbols_.begin(), symbols_.end(), atom.name);
    if (found == symbols_.end())
      throw GraphError(formatted("a size uses the unknown symbol '{}'", atom.name));
    return static_cast<int>(found - symbols_.begin());
  }
  const Code code = atom.kind == AtomKind::kFloorDiv ? Code::kFloorDiv
                    : atom.kind == AtomKind::kMod    ? Code::kMod
                    : atom.kind == AtomKind::kMax    ? Code::kMax
                                                     : Code::kMin;
  const int a = add(atom.operands[0]);
  const int b = add(atom.operands[1]);
  return emit({code, a, b, 0});
}

int SizeProgram::add_term(const SizeExpr::Term& term) {
  int result = kNone;
  if (term.coefficient != 1) result = emit({Code::kConstant, 0, 0, term.coefficient});
  for (const SizeExpr::AtomPtr& atom : term.atoms) {
    const int factor = add_atom(*atom);
    result = result == kNone ? factor : emit({Code::kMul, result, factor, 0});
  }
  return result;
}

int SizeProgram::add(const SizeExpr& expr) {
  int result = kNone;
  if (expr.constant_term() != 0 || expr.terms().empty())
    result = emit({Code::kConstant, 0, 0, expr.constant_term()});
  for (const SizeExpr::Term& term : expr.terms()) {
    const int next = add_term(term);
    result = result == kNone ? next : emit({Code::kAdd, result, next, 0});
  }
  return result;
}

void SizeProgram::evaluate(const int64_t* symbols, std::vector<int64_t>& registers) const {
  registers.resize(static_cast<size_t>(size()));
  std::copy(symbols, symbols + symbols_.size(), registers.begin());
  int64_t* out = registers.data() + symbols_.size();
  const int64_t* in = registers.data();
  for (const Step& step : steps_) {
    int64_t value = 0;
    bool bad = false;
    switch (step.code) {
      case Code::kConstant:
        value = step.constant;
        break;
      case Code::kAdd:
        bad = __builtin_add_overflow(in[step.a], in[step.b], &value);
        break;
      case Code::kMul:
        bad = __builtin_mul_overflow(in[step.a], in[step.b], &value);
        break;
      case Code::kMax:
        value = std::max(in[step.a], in[step.b]);
        break;
      case Code::kMin:
        value = std::min(in[step.a], in[step.b]);
        break;
      case Code::kFloorDiv:
      case Code::kMod: {
        const int64_t a = in[step.a];
        const int64_t b = in[step.b];
        bad = b == 0 || (b == -1 && a == INT64_MIN);
        if (bad) break;
        const int64_t rest = a % b;
        const bool down = rest != 0 && (rest < 0) != (b < 0);
        value = step.code == Code::kMod ? (down ? rest + b : rest) : a / b - (down ? 1 : 0);
        break;
      }
    }
    if (bad) throw GraphError("a size overflows 64 bits or divides by zero");
    *out++ = value;
  }
}

}  // namespace dynaflow
