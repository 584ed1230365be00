// Sequences of at most 64 rows and keys: a warp has 16 whole rows of S in registers, 1 to 4 warps have a head, a block
// has as many heads as fit its 4 warps.
#pragma once

#include "src/attention/cuda/common/launch.h"
#include "src/attention/cuda/sm80/short_tile.cuh"

namespace strobe::cuda::sm80 {

inline constexpr int kPackedTiles = kPackedLongest / 8;  // n8 tiles of a row of S

/// S of 16 rows, and their softmax.
template <class T, int kColumns, bool kMasked>
class PackedRows {
 public:
  __device__ PackedRows(const Call& c, const Sequence& s, int first_row, int lane)
      : see_(c, s),
        first_row_(first_row),
        lane_(lane),
        limited_(c.window_left < kUnlimited || c.window_right < kUnlimited) {}

  __device__ const Visibility& visibility() const { return see_; }
  __device__ int row(int r) const { return first_row_ + accumulator_row(lane_) + 8 * r; }
  __device__ bool block_visible(int key_block) const {
    return !limited_ || all_summed_see(see_, first_row_, first_row_ + kShortTile, 16 * key_block, 16 * key_block + 16);
  }

  /// c[row][key] += A B^T for the keys of the sequence; A's rows from first_row.
  __device__ void multiply(float (&c)[kPackedTiles][4], uint32_t a_tile, uint32_t b_tile) const {
    const FragmentReader<kColumns, Fragment::kA> a_reader(a_tile, lane_, first_row_);
    const FragmentReader<kColumns, Fragment::kB> b_reader(b_tile, lane_);
    uint32_t a[kColumns / 16][4];
#pragma unroll
    for (int k = 0; k < kColumns / 16; ++k) a_reader.load(a[k], 0, 16 * k);
#pragma unroll
    for (int j = 0; j < kPackedTiles / 2; ++j) {
      if (16 * j >= see_.end_k) break;
#pragma unroll
      for (int k = 0; k < kColumns / 16; ++k) {
        uint32_t b[4];
        b_reader.load(b, 16 * j, 16 * k);
        Element<T>::mma_m16n8k16(c[2 * j], a[k], b[0], b[1]);
        Element<T>::mma_m16n8k16(c[2 * j + 1], a[k], b[2], b[3]);
      }
    }
  }

  /// Sets what the rows do not see to `hidden`.
  __device__ void mask(float (&c)[kPackedTiles][4], float hidden) const {
    Range keys[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) keys[r] = keys_of_summed_row<kMasked>(see_, row(r));
#pragma unroll
    for (int j = 0; j < kPackedTiles / 2; ++j) {
      if (16 * j + 16 <= see_.end_k && (!kMasked || block_visible(j))) continue;
#pragma unroll
      for (int t = 2 * j; t < 2 * j + 2; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int key = 8 * t + accumulator_column(lane_) + e % 2;
          if (key < keys[e / 2].begin || key >= keys[e / 2].end) c[t][e] = hidden;
        }
      }
    }
  }

  /// Zeros where dropout drops.
  __device__ void drop(float (&c)[kPackedTiles][4], const Dropout& dropout) const {
#pragma unroll
    for (int t = 0; t < kPackedTiles; t += 4) {
      if (8 * t >= see_.end_k) break;
      dropout.apply(c[t], c[t + 1], c[t + 2], c[t + 3], row(0), 8 * t + accumulator_column(lane_));
    }
  }

  /// out[row][d] += A[row][key] B[key][d], A in accumulators.
  __device__ void multiply_keys(float (&out)[kColumns / 8][4], const float (&c)[kPackedTiles][4],
                                uint32_t b_tile) const {
    const FragmentReader<kColumns, Fragment::kBTrans> b_reader(b_tile, lane_);
    const auto sees = [&](int key_block) {
      return [this, key_block](int m, int k) {
        const Range keys = see_.keys_of(first_row_ + m);
        return 16 * key_block + k >= keys.begin && 16 * key_block + k < keys.end;
      };
    };
#pragma unroll
    for (int j = 0; j < kPackedTiles / 2; ++j) {
      if (16 * j >= see_.end_k) break;
      uint32_t a[4];
      accumulators_to_a<T>(a, c[2 * j], c[2 * j + 1]);
      const bool partial = kMasked && !block_visible(j);
#pragma unroll
      for (int d = 0; d < kColumns / 16; ++d) {
        uint32_t b[4];
        b_reader.load(b, 16 * j, 16 * d);
        multiply_add<T, kMasked>(out[2 * d], out[2 * d + 1], a, b, partial, sees(j), lane_);
      }
    }
  }

 private:
  Visibility see_;
  int first_row_, lane_;
  bool limited_;
};

/// A warp's head and rows.
struct PackedPlace {
  Team team;
  int slot;       // of the block's heads
  int tile;       // of 16 rows of that head
  uint32_t unit;  // of work
};
__device__ inline PackedPlace packed_place(int warps_a_head, uint32_t heads_a_block) {
  const int warp = threadIdx.x / 32, slot = warps_a_head == 1 ? warp : warps_a_head == 2 ? warp / 2 : 0;
  return {{static_cast<int>(threadIdx.x) - slot * warps_a_head * 32, warps_a_head * 32, 1 + slot},
          slot,
          warp - slot * warps_a_head,
          blockIdx.x * heads_a_block + slot};
}

}  // namespace strobe::cuda::sm80
