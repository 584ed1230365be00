// The keys of a warp in the resident backward: S^T and dP^T of them against 16 rows at a time, whose accumulators are
// at once the A fragments of dV += P^T dO and dK += dS^T Q, so dK and dV never leave the registers.
#pragma once

#include "src/attention/cuda/sm80/short_bwd_row_terms.cuh"

namespace strobe::cuda::sm80 {

/// What a warp keeps of its keys in registers for the whole loop, where there is room: else it reads the fragments
/// again for every row tile.
enum class Keep { kNone, kK, kKAndV };

__device__ constexpr Keep resident_bwd_keep(int columns) {
#if __CUDA_ARCH__ >= 900
  if (columns == 64) return Keep::kK;
#endif
  return columns == 32 ? Keep::kKAndV : Keep::kNone;  // for sm_80, ptxas needs a few registers more
}

/// kTiles x 16 keys of one key/value head.
template <class T, int kColumns, int kTiles, Keep kKeep, bool kMasked>
class ResidentKeys {
  using AReader = FragmentReader<kColumns, Fragment::kA>;
  using BReader = FragmentReader<kColumns, Fragment::kB>;
  using BTransReader = FragmentReader<kColumns, Fragment::kBTrans>;
  static constexpr int kSteps = kColumns / 16;
  using Products = float[kTiles][2][4];  // of S^T or dP^T: keys by 16 rows

 public:
  /// `ds_key`: where the first key stands in the tiles of dS.
  __device__ ResidentKeys(const BwdCall& c, const Visibility& see, int first_key, int ds_key, int lane)
      : see_(see),
        first_key_(first_key),
        ds_key_(ds_key),
        lane_(lane),
        log2_scale_(c.softmax_scale * kLog2E),
        limited_(c.window_left < kUnlimited || c.window_right < kUnlimited) {}

  __device__ bool sees_any(Range keys) const { return first_key_ < keys.end && first_key_ + kTiles * 16 > keys.begin; }

  __device__ void load(uint32_t k_tile, uint32_t v_tile) {
    k_tile_ = k_tile;
    v_tile_ = v_tile;
    if constexpr (kKeep != Keep::kNone) load_fragments(k_, k_tile);
    if constexpr (kKeep == Keep::kKAndV) load_fragments(v_, v_tile);
  }

  /// Rows [first, first + 16): adds to dK and dV, writes dS to `ds_tile`, the [key][row] tile of these rows.
  __device__ void add_rows(int first, uint32_t q_tile, uint32_t do_tile, uint32_t ds_tile, const RowTerms* terms,
                           const Dropout& dropout, bool dropped, float keep_scale) {
    const bool partial =
        kMasked && limited_ && !all_summed_see(see_, first, first + kShortTile, first_key_, first_key_ + 16 * kTiles);
    const bool edge = partial || first_key_ + 16 * kTiles > see_.end_k;
    Products p = {}, ds = {};
    multiply(p, ds, q_tile, do_tile, first);
    float base[2][2], delta[2][2];
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      const auto both = *reinterpret_cast<const float4*>(terms + first + 8 * t + accumulator_column(lane_));
      base[t][0] = both.x, base[t][1] = both.z;
      delta[t][0] = both.y, delta[t][1] = both.w;
    }
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const uint32_t kept = kMasked && dropped ? kept_of(dropout, first, i) : 0xFFu;
#pragma unroll
      for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float x = exp2_approx(p[i][t][e] * log2_scale_ - base[t][e % 2]);
          const bool stays = !kMasked || (kept >> (4 * t + e) & 1) != 0;
          const float gradient = !kMasked ? ds[i][t][e] : stays ? ds[i][t][e] * keep_scale : 0.0f;
          ds[i][t][e] = x * (gradient - delta[t][e % 2]);
          p[i][t][e] = stays ? x : 0.0f;
        }
      }
    }
    if (edge) {  // select, whatever the products with hidden rows are
      mask(p, first);
      mask(ds, first);
    }
    uint32_t p_fragments[kTiles][4], ds_fragments[kTiles][4];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      accumulators_to_a<T>(p_fragments[i], p[i][0], p[i][1]);
      accumulators_to_a<T>(ds_fragments[i], ds[i][0], ds[i][1]);
      store_ds(ds_fragments[i], i, ds_tile);
    }
    add_products(p_fragments, ds_fragments, q_tile, do_tile, first, partial);
  }

  __device__ const float (&grad_k() const)[kColumns / 8][4] { return dk_[0]; }
  __device__ const float (&grad_v() const)[kColumns / 8][4] { return dv_[0]; }

  /// `grad_k`, `grad_v`: row 0 of the head.
  __device__ void store(const BwdCall& c, T* grad_k, T* grad_v, float keep_scale) const {
    write(grad_k, c.grad_k.row_stride, c.head_dim, dk_, c.softmax_scale);
    write(grad_v, c.grad_v.row_stride, c.head_dim, dv_, keep_scale);
  }

 private:
  __device__ void load_fragments(uint32_t (&a)[kTiles][kSteps][4], uint32_t tile) const {
    const AReader reader(tile, lane_, first_key_);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int k = 0; k < kSteps; ++k) reader.load(a[i][k], 16 * i, 16 * k);
    }
  }

  /// S^T and dP^T of 16 rows, both at once: twice as many products that do not wait for each other.
  __device__ void multiply(Products& p, Products& dp, uint32_t q_tile, uint32_t do_tile, int first) const {
    const AReader k_reader(k_tile_, lane_, first_key_), v_reader(v_tile_, lane_, first_key_);
    const BReader q_reader(q_tile, lane_), do_reader(do_tile, lane_);
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      uint32_t q[4], g[4];
      q_reader.load(q, first, 16 * k);
      do_reader.load(g, first, 16 * k);
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        uint32_t a[4];
        fragment<kKeep != Keep::kNone>(a, k_[i][k], k_reader, i, k);
        Element<T>::mma_m16n8k16(p[i][0], a, q[0], q[1]);
        Element<T>::mma_m16n8k16(p[i][1], a, q[2], q[3]);
        fragment<kKeep == Keep::kKAndV>(a, v_[i][k], v_reader, i, k);
        Element<T>::mma_m16n8k16(dp[i][0], a, g[0], g[1]);
        Element<T>::mma_m16n8k16(dp[i][1], a, g[2], g[3]);
      }
    }
  }

  template <bool kKept>
  __device__ void fragment(uint32_t (&a)[4], const uint32_t (&kept)[4], const AReader& reader, int tile, int k) const {
    if constexpr (kKept) {
#pragma unroll
      for (int w = 0; w < 4; ++w) a[w] = kept[w];
    } else {
      reader.load(a, 16 * tile, 16 * k);
    }
  }

  __device__ void store_ds(const uint32_t (&fragment)[4], int tile, uint32_t ds_tile) const {
    if (first_key_ + 16 * tile >= see_.end_k) return;  // beyond the tile in memory
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const int key = ds_key_ + 16 * tile + accumulator_row(lane_) + w % 2 * 8;
      const uint32_t address = ds_tile + KeyBlockLayout::offset(key, w / 2) + accumulator_column(lane_) * 2;
      store_shared_32(address, fragment[w]);
    }
  }

  __device__ uint32_t kept_of(const Dropout& dropout, int first, int tile) const {
    const int key = first_key_ + 16 * tile;
    const uint32_t kept =
        dropout.kept_of_transpose(first + accumulator_column(lane_), key / 32 * 32 + accumulator_row(lane_));
    return kept >> (key / 16 % 2 * 8);
  }

  __device__ bool sees(int row, int key) const {
    const Range keys = keys_of_summed_row<kMasked>(see_, row);
    return key >= keys.begin && key < keys.end;
  }

  __device__ void mask(Products& c, int first) const {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int row = first + 8 * t + accumulator_column(lane_) + e % 2;
          if (!sees(row, first_key_ + 16 * i + accumulator_row(lane_) + e / 2 * 8)) c[i][t][e] = 0.0f;
        }
      }
    }
  }

  /// dV[key][d] += P[key][row] dO[row][d], dK[key][d] += dS[key][row] Q[row][d].
  __device__ void add_products(const uint32_t (&p)[kTiles][4], const uint32_t (&ds)[kTiles][4], uint32_t q_tile,
                               uint32_t do_tile, int first, bool partial) {
    const BTransReader q_reader(q_tile, lane_), do_reader(do_tile, lane_);
#pragma unroll
    for (int d = 0; d < kSteps; ++d) {
      uint32_t g[4], q[4];
      do_reader.load(g, first, 16 * d);
      q_reader.load(q, first, 16 * d);
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        const auto seen = [&](int m, int k) { return sees(first + k, first_key_ + 16 * i + m); };
        multiply_add<T, kMasked>(dv_[i][2 * d], dv_[i][2 * d + 1], p[i], g, partial, seen, lane_);
        multiply_add<T, kMasked>(dk_[i][2 * d], dk_[i][2 * d + 1], ds[i], q, partial, seen, lane_);
      }
    }
  }

  __device__ void write(T* data, int64_t row_stride, int head_dim, const float (&out)[kTiles][kColumns / 8][4],
                        float factor) const {
    const float factors[2] = {factor, factor};
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      T* row[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int key = first_key_ + 16 * i + accumulator_row(lane_) + 8 * r;
        row[r] = key < see_.end_k ? data + key * row_stride : nullptr;
      }
      store_rows<T>(out[i], factors, row, head_dim, lane_);
    }
  }

  const Visibility& see_;
  int first_key_, ds_key_, lane_;
  float log2_scale_;
  bool limited_;
  uint32_t k_tile_, v_tile_;
  uint32_t k_[kTiles][kSteps][4], v_[kTiles][kSteps][4];
  float dk_[kTiles][kColumns / 8][4] = {}, dv_[kTiles][kColumns / 8][4] = {};
};

}  // namespace strobe::cuda::sm80
