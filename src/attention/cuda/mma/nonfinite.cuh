// Infinities and NaN in rows that some rows of a tile see and others do not: under a window or a causal mask the zeros
// that stand for hidden pairs in the left operand of a product do not undo them. Where a tile holds any, which is rare,
// the product is made without them, and where they are seen the result becomes NaN.
#pragma once

#include "src/attention/cuda/common/geometry.cuh"
#include "src/attention/cuda/common/tile.cuh"

namespace strobe::cuda {

__device__ inline bool limited(const Call& c) { return c.window_left < kUnlimited || c.window_right < kUnlimited; }

/// Asked by a whole warp.
template <class T, int kRows, int kColumns>
__device__ inline bool all_finite(const unsigned char* tile, int lane) {
  constexpr int kChunks = kRows * TileLayout<kColumns>::kChunks;
  uint32_t sum = 0;  // of 0 * x: 0 or NaN
#pragma unroll 4
  for (int chunk = lane; chunk < kChunks; chunk += 32) {
    const uint4 x = reinterpret_cast<const uint4*>(tile)[chunk];
    sum = Element<T>::add_zero_times(sum, x.x);
    sum = Element<T>::add_zero_times(sum, x.y);
    sum = Element<T>::add_zero_times(sum, x.z);
    sum = Element<T>::add_zero_times(sum, x.w);
  }
  return !__any_sync(0xFFFFFFFFu, (sum & 0x7FFF7FFFu) != 0);
}

template <class T>
__device__ inline bool low_is_finite(uint32_t pair) {
  return (pair & Element<T>::kExponentMask) != Element<T>::kExponentMask;
}

/// Zeros instead of infinities and NaN.
template <class T>
__device__ inline void keep_finite(uint32_t (&b)[4]) {
#pragma unroll
  for (uint32_t& pair : b) {
    if (!low_is_finite<T>(pair)) pair &= 0xFFFF0000u;
    if (!low_is_finite<T>(pair >> 16)) pair &= 0x0000FFFFu;
  }
}

/// NaN in the columns of the lane's two rows of accumulators where a row of the tile that they see is not finite.
/// seen[r]: the rows of the tile that the accumulators' row r sees.
template <class T, int kColumns, class Layout = TileLayout<kColumns>, int kTiles>
__device__ inline void mark_seen(float (&accumulators)[kTiles][4], const unsigned char* tile, const Range (&seen)[2],
                                 int first_column, int lane) {
#pragma unroll 1
  for (int k = min(seen[0].begin, seen[1].begin); k < max(seen[0].end, seen[1].end); ++k) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const uint32_t pair = *reinterpret_cast<const uint32_t*>(
          tile + Layout::offset(k, first_column / kChunkElements + n) + lane % 4 * 4);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const bool sees = k >= seen[r].begin && k < seen[r].end;
        if (sees && !low_is_finite<T>(pair)) accumulators[n][2 * r] = NAN;
        if (sees && !low_is_finite<T>(pair >> 16)) accumulators[n][2 * r + 1] = NAN;
      }
    }
  }
}

/// The part of a range that is in a tile of `count` from `first` on, counted from there.
__device__ inline Range within(const Range& range, int first, int count) {
  return {max(range.begin - first, 0), min(range.end - first, count)};
}

}  // namespace strobe::cuda
