// Forward with K and V of a head in shared memory: a warp takes 16 rows at a time over chunks of kTiles x 16 keys, with
// the online softmax between chunks: few of them, all whole (kTiles is chosen by the length), so rescaling is rare and
// no product waits for the one before it. 16 rows a warp keep 16 warps on a multiprocessor, which hide what 8 warps
// with twice the rows would wait for, although each fragment of K and V then serves half as many products.
#pragma once

#include "src/attention/cuda/sm80/short_fwd_packed.cuh"

namespace strobe::cuda::sm80 {

/// 16 rows of one head.
template <class T, int kColumns, int kTiles, bool kMasked>
class ResidentRows {
  static constexpr int kChunkKeys = 16 * kTiles, kSteps = kColumns / 16;

 public:
  __device__ ResidentRows(const FwdCall& c, const Visibility& see, int first_row, int lane)
      : c_(c), see_(see), first_row_(first_row), lane_(lane) {}

  /// `after_queries` is called when the rows of Q have been read.
  template <class AfterQueries>
  __device__ void attend(uint32_t q_tile, uint32_t k_tile, uint32_t v_tile, const AfterQueries& after_queries) {
    const Range keys = keys_of_tile<kMasked>(see_, first_row_);
    const float scale = c_.softmax_scale * kLog2E;
    int first = keys.begin / kChunkKeys * kChunkKeys;
    if (keys.empty()) after_queries();
#pragma unroll 1
    for (; first < keys.end; first += kChunkKeys) {
      float p[2 * kTiles][4] = {};
      multiply_keys(p, q_tile, k_tile, first);
      if (first + kChunkKeys >= keys.end) after_queries();
      const bool partial = kMasked && !all_see(see_, first_row_, first_row_ + kShortTile, first, first + kChunkKeys);
      if (partial || first + kChunkKeys > see_.end_k) mask(p, first);
      exponentiate(p, scale);
      if (kMasked && c_.rng_state != nullptr) drop(p, first);
      add_values(p, v_tile, first, partial);
    }
  }

  /// `data`, `lse`: where row 0 of the head goes.
  __device__ void store(T* data, float* lse) const {
    const float scale = kMasked && c_.rng_state != nullptr ? dropout_scale(c_.dropout_threshold) : 1.0f;
    float factor[2];
    T* out[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float sum = quad_sum(sum_[r]);
      const int at = row(r);
      const bool valid = at < see_.end_q, empty = keys_of_row<kMasked>(see_, at).empty();
      factor[r] = empty ? 0.0f : __fdividef(scale, sum);
      out[r] = valid ? data + at * c_.out.row_stride : nullptr;
      if (valid && lane_ % 4 == 0) lse[at] = empty ? -kInfinity : max_[r] * c_.softmax_scale + __logf(sum);
    }
    store_rows<T>(out_, factor, out, c_.head_dim, lane_);
  }

 private:
  __device__ int row(int r) const { return first_row_ + accumulator_row(lane_) + 8 * r; }

  __device__ void multiply_keys(float (&p)[2 * kTiles][4], uint32_t q_tile, uint32_t k_tile, int first) const {
    const FragmentReader<kColumns, Fragment::kA> q_reader(q_tile, lane_);
    const FragmentReader<kColumns, Fragment::kB> k_reader(k_tile, lane_, first);
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      uint32_t a[4];
      q_reader.load(a, 0, 16 * k);
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        uint32_t b[4];
        k_reader.load(b, 16 * j, 16 * k);
        Element<T>::mma_m16n8k16(p[2 * j], a, b[0], b[1]);
        Element<T>::mma_m16n8k16(p[2 * j + 1], a, b[2], b[3]);
      }
    }
  }

  __device__ void mask(float (&p)[2 * kTiles][4], int first) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const Range keys = keys_of_row<kMasked>(see_, row(r));
#pragma unroll
      for (int t = 0; t < 2 * kTiles; ++t) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int key = first + 8 * t + accumulator_column(lane_) + e;
          if (key < keys.begin || key >= keys.end) p[t][2 * r + e] = -kInfinity;
        }
      }
    }
  }

  /// Scores to exp(score - maximum); what has been summed is brought to the new maximum.
  __device__ void exponentiate(float (&p)[2 * kTiles][4], float scale) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float m = max_[r];
#pragma unroll
      for (int t = 0; t < 2 * kTiles; ++t) m = fmaxf(m, fmaxf(p[t][2 * r], p[t][2 * r + 1]));
      m = quad_max(m);
      const float base = m == -kInfinity ? 0.0f : m * scale;
      const float rescale = exp2_approx(max_[r] * scale - base);
      max_[r] = m;
      float sum[2] = {};
#pragma unroll
      for (int t = 0; t < 2 * kTiles; ++t) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          p[t][2 * r + e] = exp2_approx(p[t][2 * r + e] * scale - base);
          sum[e] += p[t][2 * r + e];
        }
      }
      sum_[r] = sum_[r] * rescale + (sum[0] + sum[1]);
#pragma unroll
      for (int d = 0; d < kColumns / 8; ++d) {
        out_[d][2 * r] *= rescale;
        out_[d][2 * r + 1] *= rescale;
      }
    }
  }

  __device__ void drop(float (&p)[2 * kTiles][4], int first) const {
    static_assert(!kMasked || kTiles % 2 == 0);
    const Work w = work(c_, blockIdx.x, c_.num_heads_q);
    const Dropout dropout(c_, w.sequence.index, w.head);
#pragma unroll
    for (int t = 0; t + 4 <= 2 * kTiles; t += 4) {
      dropout.apply(p[t], p[t + 1], p[t + 2], p[t + 3], row(0), first + 8 * t + accumulator_column(lane_));
    }
  }

  __device__ void add_values(const float (&p)[2 * kTiles][4], uint32_t v_tile, int first, bool partial) {
    const FragmentReader<kColumns, Fragment::kBTrans> v_reader(v_tile, lane_, first);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      uint32_t a[4];
      accumulators_to_a<T>(a, p[2 * j], p[2 * j + 1]);
      const auto sees = [&](int m, int k) {
        const Range keys = see_.keys_of(first_row_ + m);
        const int key = first + 16 * j + k;
        return key >= keys.begin && key < keys.end;
      };
#pragma unroll
      for (int d = 0; d < kSteps; ++d) {
        uint32_t b[4];
        v_reader.load(b, 16 * j, 16 * d);
        multiply_add<T, kMasked>(out_[2 * d], out_[2 * d + 1], a, b, partial, sees, lane_);
      }
    }
  }

  const FwdCall& c_;
  const Visibility& see_;
  int first_row_, lane_;
  float out_[kColumns / 8][4] = {};
  float max_[2] = {-kInfinity, -kInfinity}, sum_[2] = {};
};

/// Asks for what block `unit` will read.
__device__ inline void prefetch_forward(const FwdCall& c, uint32_t unit, const Team& team) {
  const Work w = work(c, unit, c.num_heads_q);
  const Sequence& s = w.sequence;
  const int head_k = w.head / c.group();
  prefetch_rows({s.k_rows<__half>(c, c.k, head_k), c.k.row_stride, 0, s.end_k, c.head_dim}, team);
  prefetch_rows({s.k_rows<__half>(c, c.v, head_k), c.v.row_stride, 0, s.end_k, c.head_dim}, team);
  prefetch_rows({s.q_rows<__half>(c, c.q, w.head), c.q.row_stride, 0, s.end_q, c.head_dim}, team);
}

/// `ahead`: how many blocks run at the same time.
template <class T, int kColumns, int kTiles, bool kMasked>
__global__ void __launch_bounds__(resident_fwd_warps(kColumns) * 32, 1)
    short_fwd_resident(const __grid_constant__ FwdCall c, uint32_t ahead) {
  unsigned char* const shared = dynamic_shared_memory();
  const Team team{static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), 0};
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, rows_a_round = blockDim.x / 2;
  const Work w = work(c, blockIdx.x, c.num_heads_q);
  const Sequence& s = w.sequence;
  const Visibility see(c, s);

  // Where the tiles stand depends on the call alone: the compiler keeps that in uniform registers.
  const int most_keys = round_up(c.seqlen_k, kShortTile * kTiles), keys = round_up(s.end_k, kShortTile * kTiles);
  const uint32_t k_tile = shared_address(shared) + kHeaderBytes;
  const uint32_t v_tile = k_tile + TileLayout<kColumns>::bytes(most_keys);
  const uint32_t q_tile = v_tile + TileLayout<kColumns>::bytes(most_keys + kShortTile * warp);
  struct Rows {  // the head's, from 0; rather than in each lane's registers all the while
    T *queries, *out;
    float* lse;
  };
  static_assert(sizeof(Rows) <= kHeaderBytes);
  auto& rows_of_head = *reinterpret_cast<Rows*>(shared);
  if (threadIdx.x == 0) {
    rows_of_head = {s.q_rows<T>(c, c.q, w.head), s.q_rows<T>(c, c.out, w.head),
                    c.softmax_lse + s.lse_offset(c, w.head)};
  }
  const int head_k = w.head / c.group();
  team.sync();
  const auto copy_queries = [&](int first) {
    if (first < see.end_q) {  // rows count from the first of the tile
      const RowSource rows{rows_of_head.queries + first * c.q.row_stride, c.q.row_stride, 0, see.end_q - first,
                           c.head_dim};
      copy_rows_async<kColumns>(q_tile, rows, 0, kShortTile, {static_cast<int>(threadIdx.x) % 32, 32, 0});
    }
    cp_async_commit();
  };
  copy_queries(warp * kShortTile);
  copy_rows_async<kColumns>(k_tile, {s.k_rows<T>(c, c.k, head_k), c.k.row_stride, 0, s.end_k, c.head_dim}, 0, keys,
                            team);
  copy_rows_async<kColumns>(v_tile, {s.k_rows<T>(c, c.v, head_k), c.v.row_stride, 0, s.end_k, c.head_dim}, 0, keys,
                            team);
  cp_async_commit();
  write_hidden_rows<T>(c, w, team);
  if (blockIdx.x + ahead < gridDim.x) prefetch_forward(c, blockIdx.x + ahead, team);
  cp_async_wait<0>();
  team.sync();

#pragma unroll 1
  for (int first = warp * kShortTile; first < s.end_q; first += rows_a_round) {
    ResidentRows<T, kColumns, kTiles, kMasked> rows(c, see, first, lane);
    cp_async_wait<0>();
    __syncwarp();
    rows.attend(q_tile, k_tile, v_tile, [&] {
      __syncwarp();
      copy_queries(first + rows_a_round);
    });
    rows.store(rows_of_head.out, rows_of_head.lse);
  }
}

}  // namespace strobe::cuda::sm80
