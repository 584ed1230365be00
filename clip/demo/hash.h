// The choices of the built-in data set: a function of what they are for, so that one does not depend on another.
#pragma once

#include <cstdint>

namespace strobe::clip {

/// SplitMix64's output function (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014) of the
/// `number`-th state from `seed`.
constexpr uint64_t hash(uint64_t seed, uint64_t number) {
  uint64_t z = (seed << 32) + (number + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace strobe::clip
