// Forward with K and V of a head in shared memory: a warp takes 32 rows at a time (16 where the head dim is large, and
// at the end of the rows), Q comes straight to its registers, and runs over the keys in chunks of 32 with the online
// softmax. 32 rows, because a fragment of K or V that is read from shared memory then serves two products: with 16 rows
// shared memory, at 256 bytes a product, would set the pace.
#pragma once

#include "src/attention/cuda/common/launch.h"
#include "src/attention/cuda/sm80/short_tile.cuh"

namespace strobe::cuda::sm80 {

inline constexpr int kChunkKeys = 32;

/// Row tiles of 16 that a warp works on at a time: as registers allow.
constexpr int resident_fwd_row_tiles(int columns) { return columns <= 80 ? 2 : 1; }
/// At most so many warps a multiprocessor, by registers.
constexpr int resident_fwd_warps(int columns) {
  return columns == 32 ? 16 : columns == 64 ? 12 : columns == 80 ? 10 : 12;
}

/// Q fragments of 16 rows straight from global memory with 16-byte loads; rows at or beyond `end` are zeros.
template <int kColumns>
__device__ inline void load_q(uint32_t (&q)[kColumns / 16][4], const void* data, int64_t row_stride, int first_row,
                              int end, int head_dim, int lane) {
  const int quad_lane = lane % 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = first_row + accumulator_row(lane) + 8 * r;
    const auto* from = static_cast<const __half*>(data) + row * row_stride;  // any type of 2 bytes
#pragma unroll
    for (int k = 0; k < kColumns / 16; k += 2) {
      if (k + 1 < kColumns / 16) {
        const int column = (2 * k + quad_lane) * kChunkElements;
        uint4 chunk = make_uint4(0, 0, 0, 0);
        if (row < end && column < head_dim) chunk = __ldg(reinterpret_cast<const uint4*>(from + column));
        uint32_t w[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
        transpose_in_quad(w, lane);
        q[k][r] = w[0];
        q[k][2 + r] = w[1];
        q[k + 1][r] = w[2];
        q[k + 1][2 + r] = w[3];
      } else {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int column = (2 * k + half) * kChunkElements;
          q[k][2 * half + r] =
              row < end && column < head_dim ? __ldg(reinterpret_cast<const uint32_t*>(from + column) + quad_lane) : 0;
        }
      }
    }
  }
}

/// kTiles x 16 rows of one head.
template <class T, int kColumns, bool kMasked, int kTiles>
class ResidentRows {
 public:
  __device__ ResidentRows(const FwdCall& c, const Work& w, int first_row, int lane)
      : c_(c), see_(c, w.sequence), first_row_(first_row), lane_(lane) {
    const Sequence& s = w.sequence;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      max_[i][0] = max_[i][1] = -kInfinity;
      load_q<kColumns>(q_[i], s.q_rows<T>(c, c.q, w.head), c.q.row_stride, first_row + 16 * i, s.end_q, c.head_dim,
                       lane);
    }
  }

  __device__ void attend(uint32_t k_tile, uint32_t v_tile) {
    const Range keys = see_.keys_of_rows(first_row_, first_row_ + 16 * kTiles);
    const FragmentReader<kColumns, Fragment::kB> k_reader(k_tile, lane_);
    const FragmentReader<kColumns, Fragment::kBTrans> v_reader(v_tile, lane_);
    const float scale = c_.softmax_scale * kLog2E;
#pragma unroll 1
    for (int first = keys.begin / kChunkKeys * kChunkKeys; first < keys.end; first += kChunkKeys) {
      const bool whole = first + 16 < keys.end;  // else the second half of the chunk is beyond the keys' tiles
      float p[kTiles][4][4] = {};
      scores(p, k_reader, first, whole);
      const bool partial = kMasked && !all_see(see_, first_row_, first_row_ + 16 * kTiles, first, first + kChunkKeys);
      if (partial || first + kChunkKeys > see_.end_k) mask(p, first);
#pragma unroll
      for (int i = 0; i < kTiles; ++i) exponentiate(p[i], i, scale);
      if (kMasked && c_.rng_state != nullptr) drop(p, first);
      add_values(p, v_reader, first, whole, partial);
    }
  }

  __device__ void store() {
    const Work w = work(c_, blockIdx.x, c_.num_heads_q);  // again, rather than in registers all the while
    const Sequence& s = w.sequence;
    T* const data = s.q_rows<T>(c_, c_.out, w.head);
    float* const lse = c_.softmax_lse + s.lse_offset(c_, w.head);
    const float scale = kMasked && c_.rng_state != nullptr ? dropout_scale(c_.dropout_threshold) : 1.0f;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      float factor[2];
      T* out[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float sum = quad_sum(sum_[i][r]);
        const int at = row(i, r);
        const bool valid = at < s.end_q, empty = see_.keys_of(at).empty();
        factor[r] = empty ? 0.0f : scale / sum;
        out[r] = valid ? data + at * c_.out.row_stride : nullptr;
        if (valid && lane_ % 4 == 0) lse[at] = empty ? -kInfinity : max_[i][r] * c_.softmax_scale + logf(sum);
      }
      store_rows<T>(out_[i], factor, out, c_.head_dim, lane_);
    }
  }

 private:
  __device__ int row(int tile, int r) const { return first_row_ + 16 * tile + accumulator_row(lane_) + 8 * r; }

  __device__ void scores(float (&p)[kTiles][4][4], const FragmentReader<kColumns, Fragment::kB>& reader, int first,
                         bool whole) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (half == 1 && !whole) break;
#pragma unroll
      for (int k = 0; k < kColumns / 16; ++k) {
        uint32_t b[4];
        reader.load(b, first + 16 * half, 16 * k);
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          Element<T>::mma_m16n8k16(p[i][2 * half], q_[i][k], b[0], b[1]);
          Element<T>::mma_m16n8k16(p[i][2 * half + 1], q_[i][k], b[2], b[3]);
        }
      }
    }
  }

  __device__ void mask(float (&p)[kTiles][4][4], int first) const {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const Range keys = kMasked ? see_.keys_of(row(i, r)) : Range{0, see_.end_k};
#pragma unroll
        for (int t = 0; t < 4; ++t) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int key = first + 8 * t + accumulator_column(lane_) + e;
            if (key < keys.begin || key >= keys.end) p[i][t][2 * r + e] = -kInfinity;
          }
        }
      }
    }
  }

  /// Scores to exp(score - maximum); what has been summed is brought to the new maximum.
  __device__ void exponentiate(float (&p)[4][4], int i, float scale) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float m = max_[i][r];
#pragma unroll
      for (int t = 0; t < 4; ++t) m = fmaxf(m, fmaxf(p[t][2 * r], p[t][2 * r + 1]));
      m = quad_max(m);
      const float base = m == -kInfinity ? 0.0f : m * scale;
      const float rescale = exp2_approx(max_[i][r] * scale - base);
      max_[i][r] = m;
      float sum = 0.0f;
#pragma unroll
      for (int t = 0; t < 4; ++t) {
#pragma unroll
        for (int e = 2 * r; e < 2 * r + 2; ++e) {
          p[t][e] = exp2_approx(p[t][e] * scale - base);
          sum += p[t][e];
        }
      }
      sum_[i][r] = sum_[i][r] * rescale + sum;
#pragma unroll
      for (int d = 0; d < kColumns / 8; ++d) {
        out_[i][d][2 * r] *= rescale;
        out_[i][d][2 * r + 1] *= rescale;
      }
    }
  }

  __device__ void drop(float (&p)[kTiles][4][4], int first) const {
    const Work w = work(c_, blockIdx.x, c_.num_heads_q);
    const Dropout dropout(c_, w.sequence.index, w.head);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      dropout.apply(p[i][0], p[i][1], p[i][2], p[i][3], row(i, 0), first + accumulator_column(lane_));
    }
  }

  __device__ void add_values(const float (&p)[kTiles][4][4], const FragmentReader<kColumns, Fragment::kBTrans>& reader,
                             int first, bool whole, bool partial) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (half == 1 && !whole) break;
      uint32_t a[kTiles][4];
#pragma unroll
      for (int i = 0; i < kTiles; ++i) accumulators_to_a<T>(a[i], p[i][2 * half], p[i][2 * half + 1]);
#pragma unroll
      for (int d = 0; d < kColumns / 16; ++d) {
        uint32_t b[4];
        reader.load(b, first + 16 * half, 16 * d);
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          const auto sees = [&](int m, int k) {
            const Range keys = see_.keys_of(first_row_ + 16 * i + m);
            const int key = first + 16 * half + k;
            return key >= keys.begin && key < keys.end;
          };
          multiply_add<T, kMasked>(out_[i][2 * d], out_[i][2 * d + 1], a[i], b, partial, sees, lane_);
        }
      }
    }
  }

  const FwdCall& c_;
  Visibility see_;
  int first_row_, lane_;
  uint32_t q_[kTiles][kColumns / 16][4];
  float out_[kTiles][kColumns / 8][4] = {};
  float max_[kTiles][2], sum_[kTiles][2] = {};
};

template <class T, int kColumns, bool kMasked>
__global__ void __launch_bounds__(resident_fwd_warps(kColumns) * 32, 1)
    short_fwd_resident(const __grid_constant__ FwdCall c) {
  extern __shared__ __align__(128) unsigned char shared[];
  const Work w = work(c, blockIdx.x, c.num_heads_q);
  const Sequence& s = w.sequence;
  const Team team{static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), 0};
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;

  const int keys = round_up(s.end_k, kShortTile);
  const uint32_t k_tile = shared_address(shared);
  const uint32_t v_tile = k_tile + TileLayout<kColumns>::bytes(keys);
  const int head_k = w.head / c.group();
  copy_rows_async<kColumns>(k_tile, {s.k_rows<T>(c, c.k, head_k), c.k.row_stride, 0, s.end_k, c.head_dim}, 0, keys,
                            team);
  copy_rows_async<kColumns>(v_tile, {s.k_rows<T>(c, c.v, head_k), c.v.row_stride, 0, s.end_k, c.head_dim}, 0, keys,
                            team);
  cp_async_commit();
  write_hidden_rows<T>(c, w, team);

  constexpr int kTiles = resident_fwd_row_tiles(kColumns), kRows = 16 * kTiles;
  bool loaded = false;
  const auto wait = [&] {
    if (loaded) return;
    cp_async_wait<0>();
    team.sync();
    loaded = true;
  };
  int first = warp * kRows;
  for (; first + kRows - 16 < s.end_q; first += warps * kRows) {
    ResidentRows<T, kColumns, kMasked, kTiles> rows(c, w, first, lane);
    wait();
    rows.attend(k_tile, v_tile);
    rows.store();
  }
  if (kTiles > 1 && first < s.end_q) {
    ResidentRows<T, kColumns, kMasked, 1> rows(c, w, first, lane);
    wait();
    rows.attend(k_tile, v_tile);
    rows.store();
  }
  wait();  // every thread meets the barrier once
}

}  // namespace strobe::cuda::sm80
