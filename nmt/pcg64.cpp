#include "nmt/pcg64.h"

#include <array>
#include <bit>

namespace strobe::nmt {
namespace {

constexpr std::size_t kPool = 4;
using Pool = std::array<uint32_t, kPool>;

/// One of SeedSequence's two hashes: its constant moves on with each value.
class Hash {
 public:
  Hash(uint32_t constant, uint32_t multiplier) : constant_(constant), multiplier_(multiplier) {}
  uint32_t operator()(uint32_t value) {
    value ^= constant_;
    constant_ *= multiplier_;
    value *= constant_;
    return value ^ (value >> 16);
  }

 private:
  uint32_t constant_, multiplier_;
};

uint32_t mix(uint32_t x, uint32_t y) {
  const uint32_t value = 0xCA01F9DDu * x - 0x4973F715u * y;
  return value ^ (value >> 16);
}

Pool entropy_pool(uint64_t seed) {
  Hash hash(0x43B0D7E5u, 0x931E8875u);
  Pool pool{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  for (uint32_t& word : pool) word = hash(word);
  for (std::size_t from = 0; from < kPool; ++from) {
    for (std::size_t to = 0; to < kPool; ++to) {
      if (from != to) pool[to] = mix(pool[to], hash(pool[from]));
    }
  }
  return pool;
}

}  // namespace

Pcg64::Pcg64(uint64_t seed) {
  const Pool pool = entropy_pool(seed);
  Hash hash(0x8B51F9DDu, 0x58F38DEDu);
  std::array<uint64_t, 4> words{};
  for (std::size_t i = 0; i < 2 * words.size(); ++i) {
    words[i / 2] |= static_cast<uint64_t>(hash(pool[i % kPool])) << (32 * (i % 2));
  }
  increment_ = (((static_cast<Word>(words[2]) << 64) | words[3]) << 1) | 1;
  advance();
  state_ += (static_cast<Word>(words[0]) << 64) | words[1];
  advance();
}

void Pcg64::advance() {
  constexpr Word kMultiplier = (static_cast<Word>(0x2360ED051FC65DA4u) << 64) | 0x4385DF649FCCF645u;
  state_ = state_ * kMultiplier + increment_;
}

uint64_t Pcg64::next64() {
  advance();
  const auto folded = static_cast<uint64_t>(state_ >> 64) ^ static_cast<uint64_t>(state_);
  return std::rotr(folded, static_cast<int>(state_ >> 122));
}

uint32_t Pcg64::next32() {
  has_upper_half_ = !has_upper_half_;
  if (!has_upper_half_) return upper_half_;
  const uint64_t number = next64();
  upper_half_ = static_cast<uint32_t>(number >> 32);
  return static_cast<uint32_t>(number);
}

uint32_t Pcg64::below(uint32_t bound) {
  if (bound == 1) return 0;
  const uint32_t threshold = -bound % bound;  // 2^32 mod bound
  uint64_t product = 0;
  do {
    product = static_cast<uint64_t>(next32()) * bound;
  } while (static_cast<uint32_t>(product) < threshold);
  return static_cast<uint32_t>(product >> 32);
}

}  // namespace strobe::nmt
