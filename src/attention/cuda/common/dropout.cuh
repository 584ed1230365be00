// The dropout function of strobe/dropout.h in the accumulators of mma. One call of Philox serves rows i, i + 8 and
// columns j, j + 8, j + 16, j + 24, which are what one lane holds of S (or of its transpose) in a block of 16 rows and
// 32 columns: two calls for the lane's 16 elements.
#pragma once

#include "src/attention/cuda/common/call.h"
#include "src/attention/cuda/common/tile.cuh"

namespace strobe::cuda {

class Dropout {
 public:
  /// Of a call without dropout: not to be used.
  Dropout() = default;
  /// Reads the state here, in the kernel, so that a captured graph draws anew at each replay.
  __device__ Dropout(const Call& c, int64_t batch, int head)
      : key_{static_cast<uint32_t>(c.rng_state[0]),
             static_cast<uint32_t>(c.rng_state[0] >> 32) ^ static_cast<uint32_t>(c.rng_state[1] >> 32)},
        offset_(static_cast<uint32_t>(c.rng_state[1])),
        head_index_(static_cast<uint32_t>(batch * c.num_heads_q + head)),
        threshold_(c.dropout_threshold) {}

  /// Sets to zero what is dropped of four n8 accumulators side by side: rows `row` (of this lane: its own row of the
  /// fragment included) and + 8; columns `column` (likewise) and + 1, from the tiles at + 0, 8, 16 and 24.
  __device__ void apply(float (&tile0)[4], float (&tile1)[4], float (&tile2)[4], float (&tile3)[4], int row,
                        int column) const {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const auto random = draw(row, column + c);
      keep_low(tile0[c], random[0]);
      keep_high(tile1[c], random[0]);
      keep_low(tile2[c], random[1]);
      keep_high(tile3[c], random[1]);
      keep_low(tile0[2 + c], random[2]);
      keep_high(tile1[2 + c], random[2]);
      keep_low(tile2[2 + c], random[3]);
      keep_high(tile3[2 + c], random[3]);
    }
  }

  /// The same for accumulators of the transpose, 32 columns of S by 16 rows: tile[m][n] holds the columns `column` + 16
  /// m and + 8 (the lane's row of the fragment included), the rows `row` + 8 n (the lane's column included) and + 1.
  /// Returns the mask of what stays, one bit an element: bit 8 m + 4 n + e of tile[m][n][e].
  __device__ uint32_t kept_of_transpose(int row, int column) const {
    uint32_t kept = 0;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const auto random = draw(row + r, column);
#pragma unroll
      for (int n = 0; n < 2; ++n) {  // rows + 0, + 8
#pragma unroll
        for (int m = 0; m < 2; ++m) {  // columns + 0, 8 and + 16, 24
          const uint32_t pair = random[2 * n + m];
          kept |= static_cast<uint32_t>((pair & 0xFFFFu) < threshold_) << (8 * m + 4 * n + r);
          kept |= static_cast<uint32_t>((pair >> 16) < threshold_) << (8 * m + 4 * n + 2 + r);
        }
      }
    }
    return kept;
  }

 private:
  __device__ std::array<uint32_t, 4> draw(int row, int column) const {
    return philox4x32_7({static_cast<uint32_t>(row / 16 * 8 + row % 8),
                         static_cast<uint32_t>(column / 32 * 8 + column % 8), head_index_, offset_},
                        {key_[0], key_[1]});
  }
  __device__ void keep_low(float& x, uint32_t pair) const { x = (pair & 0xFFFFu) < threshold_ ? x : 0.0f; }
  __device__ void keep_high(float& x, uint32_t pair) const { x = (pair >> 16) < threshold_ ? x : 0.0f; }

  uint32_t key_[2];
  uint32_t offset_, head_index_, threshold_;
};

}  // namespace strobe::cuda
