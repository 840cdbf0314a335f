#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "dynaflow/schedule.h"

namespace dynaflow {

namespace {

std::vector<int64_t> cut_even(int64_t rows, int parts) {
  std::vector<int64_t> sizes(static_cast<size_t>(parts), rows / parts);
  for (int64_t i = 0; i < rows % parts; ++i) ++sizes[static_cast<size_t>(i)];
  return sizes;
}

/// Borders at the rounded fractions, pushed apart where a part would fall below the minimum.
std::vector<int64_t> cut_fractions(const CutRule& rule, int64_t rows) {
  std::vector<int64_t> sizes;
  const double total = std::accumulate(rule.fractions.begin(), rule.fractions.end(), 0.0);
  double sum = 0;
  int64_t begin = 0;
  for (int part = 0; part < rule.parts; ++part) {
    sum += rule.fractions[static_cast<size_t>(part)] / total;
    const int64_t rest = (rule.parts - part - 1) * rule.min_rows;
    int64_t end = part + 1 == rule.parts ? rows : std::llround(sum * static_cast<double>(rows));
    end = std::clamp(end, begin + rule.min_rows, rows - rest);
    sizes.push_back(end - begin);
    begin = end;
  }
  return sizes;
}

}  // namespace

int feasible_parts(const CutRule& rule, int64_t rows) {
  return static_cast<int>(std::clamp<int64_t>(rows / std::max<int64_t>(rule.min_rows, 1), 1, rule.parts));
}

std::vector<int64_t> cut(const CutRule& rule, int64_t rows) {
  if (rule.parts <= 1) return {rows};
  if (rule.kind == CutRule::Kind::kSizes) {
    const int64_t sum = std::accumulate(rule.sizes.begin(), rule.sizes.end(), int64_t{0});
    const bool small =
        std::any_of(rule.sizes.begin(), rule.sizes.end(), [&](int64_t n) { return n < rule.min_rows; });
    if (sum != rows || small)
      throw PlanError(
          formatted("parts of [{}] rows do not fit a batch of {}: they must sum to it, each at least {}",
                    fmt::join(rule.sizes, ", "), rows, rule.min_rows));
    return rule.sizes;
  }
  if (feasible_parts(rule, rows) < rule.parts)
    throw PlanError(
        formatted("{} rows cannot make {} parts of at least {} rows", rows, rule.parts, rule.min_rows));
  return rule.kind == CutRule::Kind::kEven ? cut_even(rows, rule.parts) : cut_fractions(rule, rows);
}

}  // namespace dynaflow
