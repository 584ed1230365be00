// The query rows that a warp has in a forward pass: their scores against a block of keys, their maximum, sum and
// output, all in registers. What multiplies is derived from it.
#pragma once

#include "src/attention/cuda/common/dropout.cuh"
#include "src/attention/cuda/common/geometry.cuh"
#include "src/attention/cuda/mma/nonfinite.cuh"
#include "src/attention/cuda/mma/tiles.h"

namespace strobe::cuda {

// The probabilities of a block of keys are computed relative to the running maximum as it was before. What it is for is
// to keep the exponentials in range: only where a lane's sum of them is larger than this (or infinite, or NaN: the row
// had no maximum yet) the scores are computed once more and the maximum of such rows follows. Nobody searches for
// maxima otherwise, and O is rescaled rarely. The decision is the row's own, so no row's result depends on its
// neighbours. fp16 holds such probabilities, too.
inline constexpr float kLargestSum = 256.0f;

template <class T>
__device__ inline RowSource query_source(const Call& call, const Sequence& s, int head) {
  return {s.q_rows<T>(call, call.q, head), call.q.row_stride, 0, s.end_q, call.head_dim};
}
/// Of k or v, for a query head.
template <class T>
__device__ inline RowSource key_source(const Call& call, const Strided& t, const Sequence& s, int head,
                                       const Range& keys) {
  return {s.k_rows<T>(call, t, head / call.group()), t.row_stride, keys.begin, keys.end, call.head_dim};
}

/// Layout: of the query tile, in which O is written.
template <class T, int kHeadDim, FwdTile kTile, bool kDropout, class Layout>
class FwdRows {
 public:
  static constexpr int kRows = kTile.rows(), kKeys = kTile.keys, kThreads = kTile.threads(),
                       kRowTiles = kTile.row_tiles;

  __device__ void set_head(int64_t batch, int head) {
    batch_ = batch;
    head_ = head;
  }

  /// O = 0 and LSE = -inf for the tile's rows.
  __device__ void write_hidden(const Sequence& s, int first) const {
    T* out = s.q_rows<T>(call_, call_.out, head_);
    float* lse = call_.softmax_lse + s.lse_offset(call_, head_);
    const int rows = min(kRows, s.num_q - first);
    const int chunks = call_.head_dim / kChunkElements;
    for (int e = static_cast<int>(threadIdx.x); e < rows * chunks; e += kThreads) {
      T* row = out + static_cast<int64_t>(first + e / chunks) * call_.out.row_stride;
      *reinterpret_cast<uint4*>(row + e % chunks * kChunkElements) = uint4{0, 0, 0, 0};
    }
    for (int r = static_cast<int>(threadIdx.x); r < rows; r += kThreads) lse[first + r] = -INFINITY;
  }

 protected:
  static constexpr int kWarpRows = kRowTiles * 16;
  using Scores = float[kRowTiles][kKeys / 8][4];
  using RowValues = float[kRowTiles][2];

  __device__ FwdRows(const FwdCall& call, unsigned char* shared)
      : call_(call), shared_(shared), shared_address_(shared_address(shared)) {}

  static __device__ int thread() { return static_cast<int>(threadIdx.x); }
  static __device__ int lane() { return thread() % 32; }
  static __device__ int warp() { return thread() / 32; }
  /// What is rarely asked finds the thread out again, lest what follows from it waits in registers. (With two row tiles
  /// that costs some.)
  static __device__ int fresh_thread() { return kRowTiles > 1 ? thread() : fresh_thread_index(); }
  static __device__ int fresh_lane() { return fresh_thread() % 32; }

  __device__ RowSource query_source(const Sequence& s) const { return strobe::cuda::query_source<T>(call_, s, head_); }
  /// Of k or v.
  __device__ RowSource key_source(const Strided& t, const Sequence& s, const Range& keys) const {
    return strobe::cuda::key_source<T>(call_, t, s, head_, keys);
  }

  /// To no keys seen.
  __device__ void clear() {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        maximum_[m][r] = -INFINITY;
        sum_[m][r] = 0.0f;
      }
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) out_[m][n][e] = 0.0f;
      }
    }
  }

  /// The largest of each row's scores, over the quad.
  __device__ void row_maxima(RowValues& maximum, const Scores& scores) const {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float largest = -INFINITY;
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
          largest = fmaxf(largest, fmaxf(scores[m][n][2 * r], scores[m][n][2 * r + 1]));
        }
        maximum[m][r] = quad_max(largest);
      }
    }
  }

  /// Scores to probabilities relative to maximum_, and the sums of those of this lane's columns. Where a row has seen
  /// no key yet, an infinity or NaN, or with kGuard zeros.
  template <bool kGuard>
  __device__ void to_probabilities(Scores& scores, float to_exponent, RowValues& sums) const {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        // exp2(-inf - 0) = 0 instead of exp2(-inf + inf).
        const float shift = kGuard && maximum_[m][r] == -INFINITY ? 0.0f : -maximum_[m][r] * to_exponent;
        sums[m][r] = 0.0f;
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
          float& x = scores[m][n][2 * r];
          float& y = scores[m][n][2 * r + 1];
          x = exp2_approx(fmaf(x, to_exponent, shift));
          y = exp2_approx(fmaf(y, to_exponent, shift));
          sums[m][r] += x + y;
        }
      }
    }
  }

  __device__ void add_sums(const RowValues& sums) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) sum_[m][r] += sums[m][r];
    }
  }

  __device__ void scale_out(int m, int r, float factor) {
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) {
      out_[m][n][2 * r] *= factor;
      out_[m][n][2 * r + 1] *= factor;
    }
  }

  __device__ void hide(Scores& scores, int warp_row, int key) const {
    const int lane = fresh_lane();  // this and what follows is found out again: it is rarely asked, registers are few
    const Visibility visibility(call_, sequence(call_, batch_));
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const Range visible = visibility.keys_of(warp_row + m * 16 + r * 8 + accumulator_row(lane));
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
          for (int c = 0; c < 2; ++c) {
            const int j = key + n * 8 + accumulator_column(lane) + c;
            if (j < visible.begin || j >= visible.end) scores[m][n][2 * r + c] = -INFINITY;
          }
        }
      }
    }
  }

  __device__ void drop(Scores& scores, int warp_row, int key) const {
    const int lane = fresh_lane();
    const Dropout dropout(call_, batch_, head_);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; n += 4) {
        dropout.apply(scores[m][n], scores[m][n + 1], scores[m][n + 2], scores[m][n + 3],
                      warp_row + m * 16 + accumulator_row(lane), key + n * 8 + accumulator_column(lane));
      }
    }
  }

  static __device__ bool is_in_range(float sum) { return sum <= kLargestSum; }

  static __device__ bool in_range(const RowValues& sums) {
    bool in_range = true;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) in_range = in_range && is_in_range(sums[m][0]) && is_in_range(sums[m][1]);
    return in_range;
  }

  /// The maxima of the rows whose sums are out of range, of all if this is the `first` block of keys, become those of
  /// the scores; the sums follow, and O has to: scale(m, r, factor).
  template <class Scale>
  __device__ void follow(const Scores& scores, const RowValues& sums, float to_exponent, bool first,
                         const Scale& scale) {
    RowValues maximum;
    row_maxima(maximum, scores);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float out = first || !is_in_range(sums[m][r]) ? 1.0f : 0.0f;
        if (quad_max(out) == 0.0f || !(maximum[m][r] > maximum_[m][r])) continue;
        const float factor = exp2_approx((maximum_[m][r] - maximum[m][r]) * to_exponent);
        maximum_[m][r] = maximum[m][r];
        sum_[m][r] *= factor;
        scale(m, r, factor);
      }
    }
  }

  /// NaN in O where a value that is seen is not finite.
  template <class ValueLayout>
  __device__ void mark_nonfinite(const unsigned char* values, int warp_row, int key) {
    const int lane = fresh_lane();
    const Visibility visibility(call_, sequence(call_, batch_));
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      const int i = warp_row + m * 16 + accumulator_row(lane);
      const Range seen[2] = {within(visibility.keys_of(i), key, kKeys), within(visibility.keys_of(i + 8), key, kKeys)};
      mark_seen<T, kHeadDim, ValueLayout>(out_[m], values, seen, 0, lane);
    }
  }

  /// O times `factor` of its sum, and the LSE. O goes through the warp's own rows of the query tile, for stores of 16
  /// bytes.
  template <class Factor>
  __device__ void write(int warp_row, uint32_t queries, const Factor& factor_of) {
    const int lane = fresh_lane();
    const Sequence s = sequence(call_, batch_);
    const Visibility visibility(call_, s);
    float* lse = call_.softmax_lse + s.lse_offset(call_, head_);
    unsigned char* staging = shared_ + (queries - shared_address_);
    const int staging_row = fresh_thread() / 32 * kWarpRows;
    __syncwarp();  // the other lanes have read their queries
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int row = m * 16 + r * 8 + accumulator_row(lane), i = warp_row + row;
        const float sum = quad_sum(sum_[m][r]);
        const bool sees = i < s.end_q && !visibility.keys_of(i).empty();
        const float factor = factor_of(sum) * (kDropout ? dropout_scale(call_.dropout_threshold) : 1.0f);
        if (lane % 4 == 0 && i < s.num_q) {
          // A row whose every score is -inf is no row without keys: NaN, like its output.
          const float log_sum = maximum_[m][r] == -INFINITY ? NAN : maximum_[m][r] * call_.softmax_scale + logf(sum);
          lse[i] = sees ? log_sum : -INFINITY;
        }
#pragma unroll
        for (int n = 0; n < kHeadDim / 8; ++n) {
          const float x = out_[m][n][2 * r] * factor, y = out_[m][n][2 * r + 1] * factor;
          *reinterpret_cast<uint32_t*>(staging + Layout::offset(staging_row + row, n) + lane % 4 * 4) =
              sees ? Element<T>::pack(x, y) : 0;
        }
      }
    }
    __syncwarp();
    T* out = s.q_rows<T>(call_, call_.out, head_);
    for (int e = lane; e < kWarpRows * Layout::kChunks; e += 32) {
      const int row = e / Layout::kChunks, chunk = e % Layout::kChunks, i = warp_row + row;
      if (i < s.num_q && chunk * kChunkElements < call_.head_dim) {
        *reinterpret_cast<uint4*>(out + static_cast<int64_t>(i) * call_.out.row_stride + chunk * kChunkElements) =
            *reinterpret_cast<const uint4*>(staging + Layout::offset(staging_row + row, chunk));
      }
    }
  }

  const FwdCall& call_;
  unsigned char* shared_;
  uint32_t shared_address_;
  int64_t batch_ = 0;
  int head_ = 0;
  float maximum_[kRowTiles][2], sum_[kRowTiles][2];
  float out_[kRowTiles][kHeadDim / 8][4];
};

}  // namespace strobe::cuda
