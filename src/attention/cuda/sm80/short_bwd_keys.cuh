// The keys of a warp in the resident backward: S^T and dP^T of them against 16 rows at a time, whose accumulators are
// at once the A fragments of dV += P^T dO and dK += dS^T Q, so dK and dV never leave the registers.
#pragma once

#include "src/attention/cuda/mma/nonfinite.cuh"
#include "src/attention/cuda/sm80/short_bwd_row_terms.cuh"

namespace strobe::cuda::sm80 {

/// What a warp keeps of its keys in registers for the whole loop, where there is room: else it reads the fragments
/// again for every row tile.
enum class Keep { kNone, kK, kKAndV };

__device__ constexpr Keep resident_bwd_keep(int columns, bool masked) {
#if __CUDA_ARCH__ >= 900
  if (columns == 64 && !masked) return Keep::kK;
#endif
  return columns == 32 ? Keep::kKAndV : Keep::kNone;  // for sm_80, ptxas needs a few registers more
}

/// Whether the two tiles of a warp are from both ends of the keys, so that all warps have about as much to do under a
/// causal mask. For head dim 80, ptxas needs a few registers more.
__device__ constexpr bool resident_bwd_tiles_apart(int columns, bool masked) { return masked && columns <= 64; }

/// kTiles x 16 keys of one key/value head.
template <class T, int kColumns, int kTiles, Keep kKeep, bool kMasked>
class ResidentKeys {
  using AReader = FragmentReader<kColumns, Fragment::kA>;
  using BReader = FragmentReader<kColumns, Fragment::kB>;
  using BTransReader = FragmentReader<kColumns, Fragment::kBTrans>;
  static constexpr int kSteps = kColumns / 16;
  static constexpr bool kApart = kTiles == 2 && resident_bwd_tiles_apart(kColumns, kMasked);
  template <int kCount>
  using Products = float[kCount][2][4];  // of S^T or dP^T: keys by 16 rows

 public:
  /// `distance`: from the first tile's keys to the second's. `ds_key`: where the first key stands in the tiles of dS.
  /// `finite`: whether Q and dO are, or all rows see all keys.
  __device__ ResidentKeys(const BwdCall& c, const Visibility& see, int first_key, int distance, int ds_key, bool finite,
                          int lane)
      : see_(see),
        first_key_(first_key),
        distance_(distance),
        ds_key_(ds_key),
        lane_(lane),
        log2_scale_(c.softmax_scale * kLog2E),
        finite_(finite) {}

  __device__ bool tile_is_in(const Range& keys, int tile) const {
    const int first = first_key_ + offset(tile);
    return first < keys.end && first + kShortTile > keys.begin;
  }

  __device__ void load(uint32_t k_tile, uint32_t v_tile) {
    k_tile_ = k_tile;
    v_tile_ = v_tile;
    if constexpr (kKeep != Keep::kNone) load_fragments(k_, k_tile);
    if constexpr (kKeep == Keep::kKAndV) load_fragments(v_, v_tile);
  }

  /// Rows [first, first + 16) and the first kCount tiles: adds to dK and dV, writes dS to `ds_tile`, the [key][row]
  /// tile of these rows.
  template <bool kDropped, int kCount = kTiles>
  __device__ void add_rows(int first, uint32_t q_tile, uint32_t do_tile, uint32_t ds_tile, const RowTerms* terms,
                           const Dropout& dropout, float keep_scale) {
    constexpr int kBlock = kApart ? 1 : kCount;  // tiles side by side
    bool hidden[kCount / kBlock];
#pragma unroll
    for (int i = 0; i < kCount / kBlock; ++i) hidden[i] = has_hidden<kBlock>(first, i);
    Products<kCount> p = {}, ds = {};
    multiply<kCount>(p, ds, q_tile, do_tile, first);
    float base[2][2], delta[2][2];
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      const auto both = *reinterpret_cast<const float4*>(terms + first + 8 * t + accumulator_column(lane_));
      base[t][0] = both.x, base[t][1] = both.z;
      delta[t][0] = both.y, delta[t][1] = both.w;
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const uint32_t kept = kDropped ? kept_of(dropout, first, i) : 0;
#pragma unroll
      for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float x = exp2_approx(p[i][t][e] * log2_scale_ - base[t][e % 2]);
          const bool stays = !kDropped || (kept >> (4 * t + e) & 1) != 0;
          const float gradient = !kDropped ? ds[i][t][e] : stays ? ds[i][t][e] * keep_scale : 0.0f;
          ds[i][t][e] = x * (gradient - delta[t][e % 2]);
          p[i][t][e] = stays ? x : 0.0f;
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kCount / kBlock; ++i) {
      if (hidden[i]) {
        mask<kBlock>(p, first, i);
        mask<kBlock>(ds, first, i);
      }
    }
    uint32_t p_fragments[kCount][4], ds_fragments[kCount][4];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      accumulators_to_a<T>(p_fragments[i], p[i][0], p[i][1]);
      accumulators_to_a<T>(ds_fragments[i], ds[i][0], ds[i][1]);
      store_ds(ds_fragments[i], i, ds_tile);
    }
    if (kMasked && !finite_) {
      mark_seen_rows<kCount>(dv_, do_tile, first);
      mark_seen_rows<kCount>(dk_, q_tile, first);
      add_products<kMasked, kCount>(p_fragments, ds_fragments, q_tile, do_tile, first);
    } else {
      add_products<false, kCount>(p_fragments, ds_fragments, q_tile, do_tile, first);
    }
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
      for (int k = 0; k < kSteps; ++k) reader.load(a[i][k], offset(i), 16 * k);
    }
  }

  /// S^T and dP^T of 16 rows, both at once: twice as many products that do not wait for each other.
  template <int kCount>
  __device__ void multiply(Products<kCount>& p, Products<kCount>& dp, uint32_t q_tile, uint32_t do_tile,
                           int first) const {
    const AReader k_reader(k_tile_, lane_, first_key_), v_reader(v_tile_, lane_, first_key_);
    const BReader q_reader(q_tile, lane_), do_reader(do_tile, lane_);
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      uint32_t q[4], g[4];
      q_reader.load(q, first, 16 * k);
      do_reader.load(g, first, 16 * k);
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
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
      reader.load(a, offset(tile), 16 * k);
    }
  }

  __device__ void store_ds(const uint32_t (&fragment)[4], int tile, uint32_t ds_tile) const {
    if (first_key_ + offset(tile) >= see_.end_k) return;  // beyond the tile in memory
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const int key = ds_key_ + offset(tile) + accumulator_row(lane_) + w % 2 * 8;
      const uint32_t address = ds_tile + KeyBlockLayout::offset(key, w / 2) + accumulator_column(lane_) * 2;
      store_shared_32(address, fragment[w]);
    }
  }

  __device__ uint32_t kept_of(const Dropout& dropout, int first, int tile) const {
    const int key = first_key_ + offset(tile);
    const uint32_t kept =
        dropout.kept_of_transpose(first + accumulator_column(lane_), key / 32 * 32 + accumulator_row(lane_));
    return kept >> (key / 16 % 2 * 8);
  }

  /// Whether some of 16 rows do not see some keys of kBlock tiles from `tile` on.
  template <int kBlock>
  __device__ bool has_hidden(int first, int tile) const {
    const int key = first_key_ + offset(tile), end = key + kBlock * kShortTile;
    return (kMasked && !all_summed_see(see_, first, first + kShortTile, key, end)) || end > see_.end_k;
  }

  __device__ int offset(int tile) const { return kApart ? tile * distance_ : tile * kShortTile; }
  __device__ int key(int tile, int r) const { return first_key_ + offset(tile) + accumulator_row(lane_) + 8 * r; }
  /// The rows of 16 that a key sees, counted from `first`.
  __device__ Range rows_of(int key, int first) const {
    const Range rows = see_.rows_of(key);
    return {rows.begin - first, key < see_.end_k ? rows.end - first : 0};
  }
  /// Row `row` of those from `first` on; a key's range is worked out once for all of them.
  __device__ bool sees(int first, int row, int key) const {
    const Range keys = {0, see_.end_k};  // written out, ptxas spills at head dim 64
    if (!kMasked) return key >= keys.begin && key < keys.end;
    const Range rows = rows_of(key, first);
    return row >= rows.begin && row < rows.end;
  }

  /// A select, whatever the products with hidden rows are.
  template <int kBlock, int kCount>
  __device__ void mask(float (&c)[kCount][2][4], int first, int tile) const {
#pragma unroll
    for (int i = tile; i < tile + kBlock; ++i) {
#pragma unroll
      for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (!sees(first, accumulator_column(lane_) + 8 * t + e % 2, key(i, e / 2))) c[i][t][e] = 0.0f;
        }
      }
    }
  }

  template <int kCount>
  __device__ void mark_seen_rows(float (&gradient)[kTiles][kColumns / 8][4], uint32_t tile, int first) const {
    const unsigned char* const rows =
        dynamic_shared_memory() + (tile - shared_address(dynamic_shared_memory())) + TileLayout<kColumns>::bytes(first);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const Range seen[2] = {within(rows_of(key(i, 0), first), 0, kShortTile),
                             within(rows_of(key(i, 1), first), 0, kShortTile)};
      mark_seen<T, kColumns>(gradient[i], rows, seen, 0, lane_);
    }
  }

  /// dV[key][d] += P[key][row] dO[row][d], dK[key][d] += dS[key][row] Q[row][d]; kFinitePart: without what is not
  /// finite in Q and dO.
  template <bool kFinitePart, int kCount>
  __device__ void add_products(const uint32_t (&p)[kCount][4], const uint32_t (&ds)[kCount][4], uint32_t q_tile,
                               uint32_t do_tile, int first) {
    const BTransReader q_reader(q_tile, lane_), do_reader(do_tile, lane_);
#pragma unroll
    for (int d = 0; d < kSteps; ++d) {
      uint32_t g[4], q[4];
      do_reader.load(g, first, 16 * d);
      q_reader.load(q, first, 16 * d);
      if constexpr (kFinitePart) {
        keep_finite<T>(g);
        keep_finite<T>(q);
      }
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        multiply_add<T>(dv_[i][2 * d], dv_[i][2 * d + 1], p[i], g);
        multiply_add<T>(dk_[i][2 * d], dk_[i][2 * d + 1], ds[i], q);
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
        row[r] = key(i, r) < see_.end_k ? data + key(i, r) * row_stride : nullptr;
      }
      store_rows<T>(out[i], factors, row, head_dim, lane_);
    }
  }

  const Visibility& see_;
  int first_key_, distance_, ds_key_, lane_;
  float log2_scale_;
  bool finite_;
  uint32_t k_tile_, v_tile_;
  uint32_t k_[kTiles][kSteps][4], v_[kTiles][kSteps][4];
  float dk_[kTiles][kColumns / 8][4] = {}, dv_[kTiles][kColumns / 8][4] = {};
};

}  // namespace strobe::cuda::sm80
