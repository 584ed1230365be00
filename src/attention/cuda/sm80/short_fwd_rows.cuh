// The forward of 16 rows of a head over chunks of keys in shared memory: Q, S and O in registers, the online softmax
// between chunks. The last chunk has as many tiles of 16 keys as are left, so that 197 keys are 208.
#pragma once

#include "src/attention/cuda/sm80/short_tile.cuh"

namespace strobe::cuda::sm80 {

/// The fragments of 16 x 16 blocks of a tile at a multiple of 128 bytes, all of whose addresses come from one: columns
/// that the permutation of TileLayout tells apart are an exclusive or away, the others and the rows a sum.
template <int kColumns, Fragment kKind>
class BlockReader {
  using Layout = TileLayout<kColumns>;
  static constexpr int kVariants = Layout::kPhases / 2;

 public:
  __device__ BlockReader(uint32_t tile, int lane) {
    constexpr bool kRowsFirst = kKind == Fragment::kBTrans;
    static_assert(kRowsFirst || kKind == Fragment::kB);
    first_ = tile + (kRowsFirst ? Layout::offset(lane % 16, lane / 16)
                                : Layout::offset(lane % 8 + lane / 16 * 8, lane / 8 % 2));
  }
  /// Rows 16 row, columns 16 column; known at compile time.
  __device__ void load(uint32_t (&r)[4], int row, int column) const {
    const uint32_t address = (first_ ^ static_cast<uint32_t>(column % kVariants * 32)) +
                             static_cast<uint32_t>(column / kVariants * kVariants * 32 + row * Layout::bytes(16));
    if constexpr (kKind == Fragment::kB) {
      ldmatrix_x4(r, address);
    } else {
      ldmatrix_x4_trans(r, address);
    }
  }

 private:
  uint32_t first_;
};

inline constexpr float kLn2 = 0.6931471805599453f;

template <class T, int kColumns, bool kMasked>
class FwdRows {
  static constexpr int kSteps = kColumns / 16;

 public:
  __device__ FwdRows(const FwdCall& c, const Visibility& see, int first_row, int lane)
      : c_(c),
        see_(see),
        seen_(kMasked && first_row < see.end_q ? see.keys_of_all_rows(first_row, first_row + kShortTile)
                                               : Range{0, see.end_k}),
        first_row_(first_row),
        lane_(lane) {}

  __device__ void load_queries(uint32_t q_tile) {
    const FragmentReader<kColumns, Fragment::kA> reader(q_tile, lane_);
#pragma unroll
    for (int k = 0; k < kSteps; ++k) reader.load(q_[k], 0, 16 * k);
  }

  /// `drop(p, first_key)` sets what dropout drops of a chunk to zero.
  template <class Drop>
  __device__ void attend(uint32_t k_tile, uint32_t v_tile, int first_key, int end_key, const Drop& drop) {
    attend<kFwdChunk / kShortTile>(k_tile, v_tile, first_key, end_key, drop);
  }

  /// `data`, `lse`: where row 0 of the head goes; `scale`: of what dropout leaves.
  __device__ void store(T* data, float* lse, float scale) const {
    float factor[2];
    T* out[2];
    const int first = row(0);
    T* const at = data + first * c_.out.row_stride;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float sum = quad_sum(sum_[r]);  // at least 1 where there are keys
      const bool empty = keys_of_row<kMasked>(see_, first + 8 * r).empty();
      factor[r] = empty ? 0.0f : scale * reciprocal_approx(sum);
      const bool valid = first + 8 * r < see_.end_q;
      if (valid && lane_ % 4 == 0) {
        lse[first + 8 * r] = empty ? -kInfinity : max_[r] * c_.softmax_scale + log2_approx(sum) * kLn2;
      }
      out[r] = valid ? at + 8 * r * c_.out.row_stride : nullptr;
    }
    store_rows<T>(out_, factor, out, c_.head_dim, lane_);
  }

  __device__ int first_row() const { return first_row_; }
  __device__ int row(int r) const { return first_row_ + accumulator_row(lane_) + 8 * r; }

 private:
  /// At most kTiles tiles of 16 keys; dropout takes them in pairs.
  template <int kTiles, class Drop>
  __device__ void attend(uint32_t k_tile, uint32_t v_tile, int first_key, int end_key, const Drop& drop) {
    constexpr int kFewer = kMasked ? 2 : 1;
    if constexpr (kTiles > kFewer) {
      if (end_key - first_key <= kShortTile * (kTiles - kFewer)) {
        return attend<kTiles - kFewer>(k_tile, v_tile, first_key, end_key, drop);
      }
    }
    float p[2 * kTiles][4] = {};
    multiply_keys(p, k_tile);
    // Without a window only the last 16 keys can be hidden.
#pragma unroll
    for (int j = kMasked ? 0 : kTiles - 1; j < kTiles; ++j) {
      if (!all_see(first_key + kShortTile * j)) mask(p[2 * j], p[2 * j + 1], first_key + kShortTile * j);
    }
    exponentiate(p, c_.softmax_scale * kLog2E);
    drop(p, first_key);
    add_values(p, v_tile, first_key);
  }

  template <int kCount>
  __device__ void multiply_keys(float (&p)[kCount][4], uint32_t k_tile) const {
    const BlockReader<kColumns, Fragment::kB> reader(k_tile, lane_);
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
#pragma unroll
      for (int j = 0; j < kCount / 2; ++j) {
        uint32_t b[4];
        reader.load(b, j, k);
        Element<T>::mma_m16n8k16(p[2 * j], q_[k], b[0], b[1]);
        Element<T>::mma_m16n8k16(p[2 * j + 1], q_[k], b[2], b[3]);
      }
    }
  }

  /// Whether all the rows see all of 16 keys.
  __device__ bool all_see(int first_key) const {
    return (!kMasked || first_key >= seen_.begin) && first_key + kShortTile <= seen_.end;
  }

  __device__ void mask(float (&left)[4], float (&right)[4], int first_key) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const Range keys = keys_of_row<kMasked>(see_, row(r));
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int key = first_key + accumulator_column(lane_) + e;
        if ((kMasked && key < keys.begin) || key >= keys.end) left[2 * r + e] = -kInfinity;
        if ((kMasked && key + 8 < keys.begin) || key + 8 >= keys.end) right[2 * r + e] = -kInfinity;
      }
    }
  }

  /// Scores to exp(score - maximum); what has been summed is brought to the new maximum.
  template <int kCount>
  __device__ void exponentiate(float (&p)[kCount][4], float scale) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float m = max_[r];
#pragma unroll
      for (int t = 0; t < kCount; ++t) m = fmaxf(m, fmaxf(p[t][2 * r], p[t][2 * r + 1]));
      m = quad_max(m);
      const float base = m == -kInfinity ? 0.0f : m * scale;
      const float rescale = exp2_approx(max_[r] * scale - base);
      max_[r] = m;
      float sum[2] = {};
#pragma unroll
      for (int t = 0; t < kCount; ++t) {
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

  template <int kCount>
  __device__ void add_values(const float (&p)[kCount][4], uint32_t v_tile, int first_key) {
    const BlockReader<kColumns, Fragment::kBTrans> reader(v_tile, lane_);
#pragma unroll
    for (int j = 0; j < kCount / 2; ++j) {
      uint32_t a[4];
      accumulators_to_a<T>(a, p[2 * j], p[2 * j + 1]);
      if (kMasked && !all_see(first_key + 16 * j)) {
        const auto sees = [&](int m, int k) {
          const Range keys = see_.keys_of(first_row_ + m);
          const int key = first_key + 16 * j + k;
          return key >= keys.begin && key < keys.end;
        };
#pragma unroll
        for (int d = 0; d < kSteps; ++d) {
          uint32_t b[4];
          reader.load(b, j, d);
          multiply_add<T, kMasked>(out_[2 * d], out_[2 * d + 1], a, b, true, sees, lane_);
        }
      } else {
#pragma unroll
        for (int d = 0; d < kSteps; ++d) {
          uint32_t b[4];
          reader.load(b, j, d);
          multiply_add<T>(out_[2 * d], out_[2 * d + 1], a, b);
        }
      }
    }
  }

  const FwdCall& c_;
  const Visibility see_;
  const Range seen_;  // by all of the rows
  int first_row_, lane_;
  uint32_t q_[kSteps][4];
  float out_[kColumns / 8][4] = {};
  float max_[2] = {-kInfinity, -kInfinity}, sum_[2] = {};
};

}  // namespace strobe::cuda::sm80
