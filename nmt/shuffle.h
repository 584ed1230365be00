// A shuffle that gives the same order with every standard library (std::shuffle does not promise that).
#pragma once

#include <cstdint>
#include <random>
#include <utility>
#include <vector>

namespace strobe::nmt {

/// Uniform in [0, bound), bound > 0. The engine's output is fixed by the C++ standard; draws that would favour the low
/// remainders are rejected.
inline uint64_t draw_below(std::mt19937_64& engine, uint64_t bound) {
  const uint64_t rejected_from = UINT64_MAX - UINT64_MAX % bound;
  uint64_t word = engine();
  while (word >= rejected_from) word = engine();
  return word % bound;
}

/// Fisher and Yates, from the back.
template <typename T>
void shuffle(std::vector<T>& items, std::mt19937_64& engine) {
  for (std::size_t left = items.size(); left > 1; --left) std::swap(items[left - 1], items[draw_below(engine, left)]);
}

}  // namespace strobe::nmt
