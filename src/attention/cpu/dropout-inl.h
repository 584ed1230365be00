// The dropout function of strobe/dropout.h for a block of rows and columns at once: one Philox call decides 8 elements.
#pragma once

#include "src/attention/cpu/geometry-inl.h"
#include "strobe/dropout.h"

namespace strobe::cpu::STROBE_ISA {

struct Dropout {
  bool on = false;
  uint32_t threshold = 0;
  float scale = 1.0f;  // of what stays
  uint32_t key[2] = {};
  uint32_t head = 0;    // b * Hq + h
  uint32_t offset = 0;  // its low half; the high half is in the key
};

template <class Params>
Dropout dropout(const Params& p, const Sequence& s, int64_t head) {
  Dropout d;
  if (p.dropout_p == 0.0) return d;
  const uint64_t seed = p.rng_state[0], offset = p.rng_state[1];
  d.on = true;
  d.threshold = dropout_threshold(p.dropout_p);
  d.scale = dropout_scale(d.threshold);
  d.key[0] = static_cast<uint32_t>(seed);
  d.key[1] = static_cast<uint32_t>(seed >> 32) ^ static_cast<uint32_t>(offset >> 32);
  d.head = static_cast<uint32_t>(s.index * p.num_heads_q + head);
  d.offset = static_cast<uint32_t>(offset);
  return d;
}

/// Bytes of a row of keep bits for `columns` columns.
inline int64_t keep_bytes(int64_t columns) { return round_up(columns, 32) / 8; }

/// The four outputs of Philox in the low halves of 64-bit lanes, whose high halves are left with rubbish. Lane l has
/// the column counter column_counter + l.
inline void philox(const Dropout& d, uint32_t row_counter, uint32_t column_counter, U64 (&x)[4]) {
  const U64 multiplier0 = set1_u64(0xD2511F53), multiplier2 = set1_u64(0xCD9E8D57);
  x[0] = set1_u64(row_counter);
  x[1] = ascending(column_counter);
  x[2] = set1_u64(d.head);
  x[3] = set1_u64(d.offset);
  uint32_t key0 = d.key[0], key1 = d.key[1];
#pragma GCC unroll 7
  for (int round = 0; round < 7; ++round) {
    const U64 a = multiply_low(multiplier0, x[0]), b = multiply_low(multiplier2, x[2]);
    x[0] = xor3(high_half(b), x[1], set1_u64(key0));
    x[1] = b;
    x[2] = xor3(high_half(a), x[3], set1_u64(key1));
    x[3] = a;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

/// Bit j % 8 of to[i * ld + j / 8] = whether element (row + i, column + j) stays; column is a multiple of 32.
inline void keep_bits(const Dropout& d, int64_t row, int64_t rows, int64_t column, int64_t columns, uint8_t* to,
                      int64_t ld) {
  const U64 low_mask = set1_u64(0xFFFF), low_limit = set1_u64(d.threshold);
  const U64 high_mask = set1_u64(0xFFFF0000), high_limit = set1_u64(uint64_t{d.threshold} << 16);
  for (int64_t i = row / 16 * 16; i < row + rows; i += i % 8 == 7 ? 9 : 1) {  // rows i and i + 8 of each 16
    for (int64_t j = 0; j < columns; j += 32) {
      uint32_t words[8] = {};  // bit c: whether that word of column residue c stays
#pragma GCC unroll 4
      for (int c = 0; c < 8; c += kLanes64) {
        U64 x[4];
        philox(d, static_cast<uint32_t>(8 * (i / 16) + i % 8), static_cast<uint32_t>((column + j) / 4 + c), x);
#pragma GCC unroll 4
        for (int output = 0; output < 4; ++output) {
          words[2 * output] |= masked_below(x[output], low_mask, low_limit) << c;
          words[2 * output + 1] |= masked_below(x[output], high_mask, high_limit) << c;
        }
      }
      for (int upper = 0; upper < 2; ++upper) {
        const int64_t to_row = i + 8 * upper - row;
        if (to_row < 0 || to_row >= rows) continue;
        for (int word = 0; word < 4; ++word) {
          to[to_row * ld + j / 8 + word] = static_cast<uint8_t>(words[4 * upper + word]);
        }
      }
    }
  }
}

/// The lanes that stay of the vector at column j, a multiple of kLanes.
inline Mask kept_lanes(const uint8_t* keep_row, int64_t j) {
  uint32_t bits = keep_row[j / 8];
  if constexpr (kLanes == 16) bits |= static_cast<uint32_t>(keep_row[j / 8 + 1]) << 8;
  return lanes_of_bits(bits >> (j % 8));
}

}  // namespace strobe::cpu::STROBE_ISA
