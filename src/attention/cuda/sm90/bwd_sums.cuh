// The sums of dQ in the workspace of the backward on wgmma: tile by tile, each in the order of the registers that hold
// it, so that a warp's part is one piece of memory.
#pragma once

#include "src/attention/cuda/common/geometry.cuh"
#include "src/attention/cuda/sm90/bwd_config.h"

namespace strobe::cuda::sm90 {

template <int kHeadDim, int kRows>
struct TileSums {
  // A warpgroup has 64 rows and kColumns of them.
  static constexpr int kColumns = kRows == 64 ? kHeadDim / kBwdWarpgroups : kHeadDim;
  static constexpr int kGroupRows = kRows == 64 ? 0 : 64, kGroupColumns = kRows == 64 ? kColumns : 0;  // to the next

  static __device__ int64_t begin(const Call& c, const Sequence& s, int head) {
    const int64_t tiles = tiles_per_head(c, kRows);
    const int64_t tile =
        c.varlen() ? head * tiles + s.q_begin / kRows + s.index : (s.index * c.num_heads_q + head) * tiles;
    return tile * (kRows * kHeadDim);
  }
  static __device__ int64_t per_head(const Call& c) { return tiles_per_head(c, kRows) * (kRows * kHeadDim); }
  static __device__ int held_rows(int rows) { return (rows + kRows - 1) / kRows * kRows; }

  /// Columns `column` to `column` + 7 of row i, `column` a multiple of 8.
  static __device__ void load(float (&x)[8], const float* sums, int i, int column) {
    const int group = kRows == 64 ? column / kColumns : i % kRows / 64, warp = group * 4 + i % 64 / 16;
    const float* from = sums + int64_t{i / kRows} * (kRows * kHeadDim) + warp * (16 * kColumns) +
                        column % kColumns / 8 * 128 + i % 8 * 16 + i % 16 / 8 * 2;
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      const float2 two = *reinterpret_cast<const float2*>(from + pair * 4);
      x[2 * pair] = two.x, x[2 * pair + 1] = two.y;
    }
  }
};

}  // namespace strobe::cuda::sm90
