// What the kernels of the short family share: rows to and from tiles, and products with edges.
#pragma once

#include "src/attention/cuda/common/dropout.cuh"
#include "src/attention/cuda/common/geometry.cuh"
#include "src/attention/cuda/common/partial.cuh"
#include "src/attention/cuda/common/tile.cuh"
#include "src/attention/cuda/sm80/short_config.h"

namespace strobe::cuda::sm80 {

inline constexpr float kInfinity = __builtin_huge_valf();

/// Some of a block's threads, whole warps, with a barrier of their own.
struct Team {
  int thread, threads, barrier;
  __device__ void sync() const { named_barrier(barrier, threads); }
};

/// Starts the copy of rows [first, last) of the source to the same rows of the tile; rows beyond source.end become
/// zeros. A thread has one chunk of every so many rows, so that its address moves by one distance.
template <int kColumns>
__device__ inline void copy_rows_async(uint32_t tile, const RowSource& source, int first, int last, const Team& team) {
  using Layout = TileLayout<kColumns>;
  const int step = team.threads / Layout::kChunks, chunk = team.thread % Layout::kChunks;
  int row = first + team.thread / Layout::kChunks;
  if (Layout::kChunks % 8 != 0 && team.thread >= step * Layout::kChunks) return;
  const bool inside = chunk * kChunkElements < source.head_dim;
  const auto* from = static_cast<const __half*>(source.data) + row * source.row_stride + chunk * kChunkElements;
  while (true) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (row >= last) return;
      cp_async_16(tile + Layout::offset(row, chunk), from, inside && row < source.end);
      row += step;
      from += step * source.row_stride;
    }
  }
}

/// Asks for rows to come to the L2 cache: those that a later block will copy.
__device__ inline void prefetch_rows(const RowSource& source, const Team& team) {
  constexpr int kElements = 32;  // 64 bytes, at most what one request brings
  const auto* row = static_cast<const __half*>(source.data) + team.thread * source.row_stride;
  for (int i = team.thread; i < source.end; i += team.threads, row += team.threads * source.row_stride) {
    for (int column = 0; column < source.head_dim; column += kElements) {
      prefetch_l2(row + column);
    }
  }
}

/// 4 x 4 words over the lanes of a quad, transposed: lane i gets word i of every lane, in the order of the lanes.
__device__ inline void transpose_in_quad(uint32_t (&w)[4], int lane) {
  const bool odd = lane % 2 != 0, upper = lane % 4 >= 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const uint32_t other = __shfl_xor_sync(0xFFFFFFFFu, odd ? w[i] : w[i + 1], 1);
    w[i] = odd ? other : w[i];
    w[i + 1] = odd ? w[i + 1] : other;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t other = __shfl_xor_sync(0xFFFFFFFFu, upper ? w[i] : w[i + 2], 2);
    w[i] = upper ? other : w[i];
    w[i + 2] = upper ? w[i + 2] : other;
  }
}

/// Writes kTiles n8 accumulators, side by side, of the lane's rows r = 0 and 1 (8 apart) with 16-byte stores: the quad
/// exchanges words until each lane has whole chunks. `row[r]`: where column 0 goes, or null; then nothing is written.
template <class T, int kTiles>
__device__ inline void store_rows(const float (&c)[kTiles][4], const float (&factor)[2], T* const (&row)[2],
                                  int head_dim, int lane) {
  static_assert(kTiles % 2 == 0);
  const int quad_lane = lane % 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const auto word = [&](int t) { return Element<T>::pack(c[t][2 * r] * factor[r], c[t][2 * r + 1] * factor[r]); };
#pragma unroll
    for (int t = 0; t + 4 <= kTiles; t += 4) {
      uint32_t w[4] = {word(t), word(t + 1), word(t + 2), word(t + 3)};
      transpose_in_quad(w, lane);
      const int column = (t + quad_lane) * kChunkElements;
      if (row[r] != nullptr && column < head_dim) {
        *reinterpret_cast<uint4*>(row[r] + column) = make_uint4(w[0], w[1], w[2], w[3]);
      }
    }
    if constexpr (kTiles % 4 != 0) {  // two tiles: lanes 0 and 2 take the halves of the first, 1 and 3 of the second
      const uint32_t left = word(kTiles - 2), right = word(kTiles - 1);
      const bool odd = lane % 2 != 0;
      const uint32_t other = __shfl_xor_sync(0xFFFFFFFFu, odd ? left : right, 1);
      const int column = (kTiles - 2 + quad_lane % 2) * kChunkElements;
      if (row[r] != nullptr && column < head_dim) {
        *reinterpret_cast<uint2*>(row[r] + column + quad_lane / 2 * 4) =
            odd ? make_uint2(other, right) : make_uint2(left, other);
      }
    }
  }
}

/// Zeros to rows [first, last).
template <class T>
__device__ inline void zero_rows(T* data, int64_t row_stride, int first, int last, int head_dim, const Team& team) {
  const int chunks = head_dim / kChunkElements;
  for (int64_t index = int64_t{first} * chunks + team.thread; index < int64_t{last} * chunks; index += team.threads) {
    *reinterpret_cast<uint4*>(data + index / chunks * row_stride + index % chunks * kChunkElements) =
        make_uint4(0, 0, 0, 0);
  }
}

/// What the base-2 exponent of P subtracts, of an LSE; rows without keys, whose LSE is -inf, get P = 0.
__device__ inline float exponent_base(float lse) { return lse == -kInfinity ? kInfinity : lse * kLog2E; }

/// The keys of rows [first, first + 16); kMasked: there can be a window.
template <bool kMasked>
__device__ inline Range keys_of_tile(const Visibility& see, int first) {
  return kMasked ? see.keys_of_rows(first, first + kShortTile) : Range{0, see.end_k};
}
template <bool kMasked>
__device__ inline Range keys_of_row(const Visibility& see, int row) {
  return kMasked ? see.keys_of(row) : Range{0, see.end_k};
}
/// For sums over rows: a row at or beyond end_q sees no key, since keys that no other row sees may hold anything.
template <bool kMasked>
__device__ inline Range keys_of_summed_row(const Visibility& see, int row) {
  Range keys = keys_of_row<kMasked>(see, row);
  if (kMasked) keys.end = row < see.end_q ? keys.end : 0;  // a select, where two ranges would be a branch
  return keys;
}

/// Whether every row of [first_row, last_row), at least one of them below end_q, sees every key of [first_key,
/// last_key).
__device__ inline bool all_see(const Visibility& see, int first_row, int last_row, int first_key, int last_key) {
  const Range keys = see.keys_of_all_rows(first_row, last_row);
  return first_key >= keys.begin && last_key <= keys.end;
}
/// For sums over rows: and all of them are below end_q.
__device__ inline bool all_summed_see(const Visibility& see, int first_row, int last_row, int first_key, int last_key) {
  return last_row <= see.end_q && all_see(see, first_row, last_row, first_key, last_key);
}

/// Sequence and head of a unit of work: `heads` of every sequence, then, in varlen, of the spare tokens.
struct Work {
  Sequence sequence;
  int head;
};
__device__ inline Work work(const Call& c, uint32_t unit, int heads) {
  const uint32_t b = unit / static_cast<uint32_t>(heads);
  return {b < c.batch ? sequence(c, b) : spare_tokens(c), static_cast<int>(unit % static_cast<uint32_t>(heads))};
}
inline int64_t work_count(const Call& c, int heads) { return (c.batch + (c.varlen() ? 1 : 0)) * heads; }

}  // namespace strobe::cuda::sm80
