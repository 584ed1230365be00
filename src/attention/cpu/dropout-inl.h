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

/// One Philox call per column residue: the words of rows i and i + 8 (i % 16 < 8), columns j..j+31, for 8 residues.
inline void random_words(const Dropout& d, int64_t i, int64_t j, uint32_t (&x)[4][8]) {
  for (int c = 0; c < 8; ++c) {
    x[0][c] = static_cast<uint32_t>(8 * (i / 16) + i % 8);
    x[1][c] = static_cast<uint32_t>(j / 4 + c);
    x[2][c] = d.head;
    x[3][c] = d.offset;
  }
  uint32_t key0 = d.key[0], key1 = d.key[1];
  for (int round = 0; round < 7; ++round) {
    for (int c = 0; c < 8; ++c) {
      const uint64_t a = uint64_t{0xD2511F53} * x[0][c], b = uint64_t{0xCD9E8D57} * x[2][c];
      const uint32_t y0 = static_cast<uint32_t>(b >> 32) ^ x[1][c] ^ key0;
      const uint32_t y2 = static_cast<uint32_t>(a >> 32) ^ x[3][c] ^ key1;
      x[0][c] = y0;
      x[1][c] = static_cast<uint32_t>(b);
      x[2][c] = y2;
      x[3][c] = static_cast<uint32_t>(a);
    }
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

/// Bit j % 8 of to[i * ld + j / 8] = whether element (row + i, column + j) stays; column is a multiple of 32.
inline void keep_bits(const Dropout& d, int64_t row, int64_t rows, int64_t column, int64_t columns, uint8_t* to,
                      int64_t ld) {
  for (int64_t base = row / 16 * 16; base < row + rows; base += 16) {
    for (int64_t i = base; i < base + 8; ++i) {
      for (int64_t j = 0; j < columns; j += 32) {
        uint32_t x[4][8];
        random_words(d, i, column + j, x);
        for (int word = 0; word < 8; ++word) {
          const int64_t to_row = i + 8 * (word / 4) - row;
          if (to_row < 0 || to_row >= rows) continue;
          uint32_t bits = 0;
          for (int c = 0; c < 8; ++c) {
            const uint32_t random = (x[word / 2][c] >> (16 * (word % 2))) & 0xFFFFu;
            bits |= static_cast<uint32_t>(random < d.threshold) << c;
          }
          to[to_row * ld + j / 8 + word % 4] = static_cast<uint8_t>(bits);
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
