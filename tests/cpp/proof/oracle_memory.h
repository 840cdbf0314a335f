#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace dynaflow::test {

/// What a byte holds, in place of a number.
using Mark = uint64_t;

inline Mark mix(Mark a, Mark b) {
  uint64_t x = a * 0x9e3779b97f4a7c15ULL + b + 0x632be59bd9b4e019ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

/// Elements in some memory: bytes from `base` on.
struct Area {
  int64_t base = 0;
  int64_t item = 1;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;

  /// Calls `body(first byte)` for each element, in row-major order of the indices.
  template <typename Body>
  void each(Body body) const {
    std::vector<int64_t> index(sizes.size(), 0);
    for (int64_t size : sizes)
      if (size == 0) return;
    while (true) {
      int64_t at = base;
      for (size_t d = 0; d < sizes.size(); ++d) at += index[d] * strides[d] * item;
      body(at);
      size_t d = sizes.size();
      while (d > 0 && ++index[d - 1] == sizes[d - 1]) index[--d] = 0;
      if (d == 0) return;
    }
  }
  /// Every byte, in the same order.
  std::vector<int64_t> bytes() const {
    std::vector<int64_t> result;
    each([&](int64_t first) {
      for (int64_t i = 0; i < item; ++i) result.push_back(first + i);
    });
    return result;
  }
};

/// Marks by byte, with a running digest of all of them.
class Memory {
 public:
  void resize(int64_t bytes) { marks_.assign(static_cast<size_t>(bytes), 0); }
  void put(int64_t byte, Mark mark) {
    Mark& cell = marks_[static_cast<size_t>(byte)];
    digest_ ^= mix(static_cast<Mark>(byte), cell) ^ mix(static_cast<Mark>(byte), mark);
    cell = mark;
  }
  Mark at(int64_t byte) const { return marks_[static_cast<size_t>(byte)]; }
  Mark digest() const { return digest_; }

  Mark read(const Area& area) const {
    Mark result = 1;
    area.each([&](int64_t byte) {
      for (int64_t i = 0; i < area.item; ++i) result = mix(result, at(byte + i));
    });
    return result;
  }
  void write(const Area& area, Mark mark) {
    Mark number = 0;
    area.each([&](int64_t byte) {
      for (int64_t i = 0; i < area.item; ++i) put(byte + i, mix(mark, ++number));
    });
  }
  bool holds(const Area& area, Mark mark) const {
    Mark number = 0;
    bool same = true;
    area.each([&](int64_t byte) {
      for (int64_t i = 0; i < area.item; ++i) same &= at(byte + i) == mix(mark, ++number);
    });
    return same;
  }

 private:
  std::vector<Mark> marks_;
  Mark digest_ = 0;
};

}  // namespace dynaflow::test
