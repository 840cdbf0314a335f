#pragma once
#include <cstdint>
#include <random>

namespace dynaflow::testing {

/// A seeded source of choices: the same seed gives the same test again.
class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  /// A number of [low, high].
  int64_t between(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(engine_);
  }
  bool coin() { return between(0, 1) == 1; }

 private:
  std::mt19937 engine_;
};

}  // namespace dynaflow::testing
