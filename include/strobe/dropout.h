// The dropout function of attention: which probabilities stay is one function of (seed, offset, batch, query head, row,
// column), the same on every device, tile and layout, and cheap to evaluate in the fragments of S and of S^T.
//
// Philox4x32 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), 7 rounds, with
//   key     = (seed.lo, seed.hi ^ offset.hi)
//   counter = (8 * (i / 16) + i % 8, 8 * (j / 32) + j % 8, b * Hq + h, offset.lo)
// for row i and column j; the element takes the 16-bit word 4 * ((i / 8) % 2) + (j / 8) % 4 of the 128-bit result (word
// 0 is the low half of the first 32-bit output). It stays iff word < threshold, threshold = round((1 - p) * 65536), and
// is then scaled by 65536 / threshold, so the expectation is exact.
#pragma once

#include <array>
#include <cstdint>

#include "strobe/types.h"

namespace strobe {

/// round((1 - dropout_p) * 65536): 65536 keeps all. dropout_p in [0, 1).
constexpr uint32_t dropout_threshold(double dropout_p) {
  return static_cast<uint32_t>((1.0 - dropout_p) * 65536.0 + 0.5);
}

/// 65536 / threshold, the factor on what stays.
constexpr float dropout_scale(uint32_t threshold) { return 65536.0f / static_cast<float>(threshold); }

/// The four 32-bit outputs of Philox4x32-7.
constexpr std::array<uint32_t, 4> philox4x32_7(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 7; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return counter;
}

/// Whether the probability of row i and column j stays. head_index = b * Hq + h.
constexpr bool dropout_keeps(uint64_t seed, uint64_t offset, uint64_t head_index, int64_t i, int64_t j,
                             uint32_t threshold) {
  const auto lo = [](uint64_t x) { return static_cast<uint32_t>(x); };
  const auto hi = [](uint64_t x) { return static_cast<uint32_t>(x >> 32); };
  const auto random = philox4x32_7({static_cast<uint32_t>(8 * (i / 16) + i % 8),
                                    static_cast<uint32_t>(8 * (j / 32) + j % 8), lo(head_index), lo(offset)},
                                   {lo(seed), hi(seed) ^ hi(offset)});
  const int word = static_cast<int>(4 * ((i / 8) % 2) + (j / 8) % 4);
  return ((random[word / 2] >> (16 * (word % 2))) & 0xFFFFu) < threshold;
}

/// Writes the factors of the whole matrix, 0 or dropout_scale, for callers that materialise the probabilities.
struct DropoutMaskParams {
  Device device = Device::kCPU;
  int64_t head_begin = 0;  // the first b * Hq + h written
  int64_t num_heads = 0;   // how many
  int64_t seqlen_q = 0;
  int64_t seqlen_k = 0;
  double dropout_p = 0.0;               // [0, 1)
  const uint64_t* rng_state = nullptr;  // [2] = {seed, offset} in memory of `device`
  float* mask = nullptr;                // [num_heads, seqlen_q, seqlen_k], contiguous
  void* stream = nullptr;               // cudaStream_t; CPU: ignored
};
/// Throws strobe::Error.
void dropout_mask(const DropoutMaskParams& params);

}  // namespace strobe
