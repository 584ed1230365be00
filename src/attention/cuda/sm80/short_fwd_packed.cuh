// Forward of sequences of at most 64 rows and keys: a warp has 16 whole rows of S in registers, 1 to 4 warps have a
// head, a block has as many heads as fit its 4 warps. Bound by memory: all of Q, K and V is asked for at once, and
// O leaves in 16-byte stores.
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

/// Rows that no kernel computes.
template <class T>
__device__ inline void write_hidden_rows(const FwdCall& c, const Work& w, const Team& team) {
  const Sequence& s = w.sequence;
  if (s.end_q >= s.num_q) return;
  zero_rows(s.q_rows<T>(c, c.out, w.head), c.out.row_stride, s.end_q, s.num_q, c.head_dim, team);
  float* lse = c.softmax_lse + s.lse_offset(c, w.head);
  for (int i = s.end_q + team.thread; i < s.num_q; i += team.threads) lse[i] = -kInfinity;
}

/// Blocks a multiprocessor, as registers allow.
constexpr int fwd_packed_blocks(int columns, bool masked) { return columns > 80 ? 3 : columns == 80 || masked ? 4 : 5; }

/// kMasked: a window or dropout; without, each row sees all keys that the lengths leave.
template <class T, int kColumns, bool kMasked>
__global__ void __launch_bounds__(kPackedWarps * 32, fwd_packed_blocks(kColumns, kMasked))
    short_fwd_packed(const __grid_constant__ FwdCall c, uint32_t units, int warps_a_head, uint32_t heads_a_block) {
  unsigned char* const shared = dynamic_shared_memory();
  const PackedPlace place = packed_place(warps_a_head, heads_a_block);
  if (place.unit >= units) return;
  const Work w = work(c, place.unit, c.num_heads_q);
  const Sequence& s = w.sequence;
  const int lane = threadIdx.x % 32;
  write_hidden_rows<T>(c, w, place.team);

  const int rows = round_up(s.end_q, kShortTile), keys = round_up(s.end_k, kShortTile);
  const uint32_t q_tile =
      shared_address(shared) + static_cast<uint32_t>(place.slot * packed_fwd_bytes(c.seqlen_q, c.seqlen_k, kColumns));
  const uint32_t k_tile = q_tile + TileLayout<kColumns>::bytes(round_up(c.seqlen_q, kShortTile));
  const uint32_t v_tile = k_tile + TileLayout<kColumns>::bytes(round_up(c.seqlen_k, kShortTile));
  const int head_k = w.head / c.group();
  copy_rows_async<kColumns>(q_tile, {s.q_rows<T>(c, c.q, w.head), c.q.row_stride, 0, s.end_q, c.head_dim}, 0, rows,
                            place.team);
  copy_rows_async<kColumns>(k_tile, {s.k_rows<T>(c, c.k, head_k), c.k.row_stride, 0, s.end_k, c.head_dim}, 0, keys,
                            place.team);
  cp_async_commit();
  copy_rows_async<kColumns>(v_tile, {s.k_rows<T>(c, c.v, head_k), c.v.row_stride, 0, s.end_k, c.head_dim}, 0, keys,
                            place.team);
  cp_async_commit();

  cp_async_wait<1>();
  place.team.sync();
  const PackedRows<T, kColumns, kMasked> tile(c, s, place.tile * kShortTile, lane);
  float p[kPackedTiles][4] = {};
  const bool computes = place.tile * kShortTile < s.end_q;
  float sum[2] = {}, maximum[2];
  if (computes) {
    tile.multiply(p, q_tile, k_tile);
    tile.mask(p, -kInfinity);
    const float scale = c.softmax_scale * kLog2E;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float m = -kInfinity;
#pragma unroll
      for (int t = 0; t < kPackedTiles; ++t) m = fmaxf(m, fmaxf(p[t][2 * r], p[t][2 * r + 1]));
      maximum[r] = quad_max(m);
      const float base = maximum[r] == -kInfinity ? 0.0f : maximum[r] * scale;
      float sums[2] = {};  // as the resident form adds, so that a sequence alone is the sequence in a batch
#pragma unroll
      for (int t = 0; t < kPackedTiles; ++t) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          p[t][2 * r + e] = exp2_approx(p[t][2 * r + e] * scale - base);
          sums[e] += p[t][2 * r + e];
        }
      }
      sum[r] = quad_sum(sums[0] + sums[1]);
    }
  }
  cp_async_wait<0>();
  place.team.sync();
  if (!computes) return;

  float factor[2] = {1.0f, 1.0f};
  if (kMasked && c.rng_state != nullptr) {
    tile.drop(p, Dropout(c, s.index, w.head));
    factor[0] = factor[1] = dropout_scale(c.dropout_threshold);
  }
  float out[kColumns / 8][4] = {};
  tile.multiply_keys(out, p, v_tile);

  T* const data = s.q_rows<T>(c, c.out, w.head);
  float* const lse = c.softmax_lse + s.lse_offset(c, w.head);
  T* row[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int i = tile.row(r);
    const bool empty = keys_of_row<kMasked>(tile.visibility(), i).empty();
    factor[r] = empty ? 0.0f : __fdividef(factor[r], sum[r]);
    row[r] = i < s.end_q ? data + i * c.out.row_stride : nullptr;
    if (i < s.end_q && lane % 4 == 0) {
      lse[i] = empty ? -kInfinity : maximum[r] * c.softmax_scale + __logf(sum[r]);
    }
  }
  store_rows<T>(out, factor, row, c.head_dim, lane);
}

}  // namespace strobe::cuda::sm80
