// The query rows that a warp has in a forward pass: their scores against a block of keys, their maximum, sum and
// output, all in registers.
#pragma once

#include "src/attention/cuda/common/dropout.cuh"
#include "src/attention/cuda/common/geometry.cuh"
#include "src/attention/cuda/mma/arch.cuh"
#include "src/attention/cuda/mma/nonfinite.cuh"

namespace strobe::cuda {

template <class Arch, class T, int kHeadDim, FwdTile kTile, bool kDropout>
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
  using Layout = TileLayout<kHeadDim>;
  using Scores = float[kRowTiles][kKeys / 8][4];
  using RowValues = float[kRowTiles][2];
  using QueryCopy = typename Arch::template TileCopy<kRows, kHeadDim, kThreads>;
  using KeyCopy = typename Arch::template TileCopy<kKeys, kHeadDim, kThreads>;

  __device__ FwdRows(const FwdCall& call, unsigned char* shared)
      : call_(call), shared_(shared), shared_address_(shared_address(shared)) {}

  static __device__ int thread() { return static_cast<int>(threadIdx.x); }
  static __device__ int lane() { return thread() % 32; }
  static __device__ int warp() { return thread() / 32; }

  __device__ RowSource query_source(const Sequence& s) const {
    return {s.q_rows<T>(call_, call_.q, head_), call_.q.row_stride, 0, s.end_q, call_.head_dim};
  }
  /// Of k or v.
  __device__ RowSource key_source(const Strided& t, const Sequence& s, const Range& keys) const {
    return {s.k_rows<T>(call_, t, head_ / call_.group()), t.row_stride, keys.begin, keys.end, call_.head_dim};
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

  // Tiles are given by their place in shared memory; keys from `key` on, rows from `warp_row` on.

  /// scores = Q K^T, -inf where a key is hidden.
  __device__ void score(Scores& scores, uint32_t queries, uint32_t k, int warp_row, int key, bool masked) {
    multiply_keys(scores, queries, k);
    if (masked) hide(scores, warp_row, key);
  }

  /// O += P V.
  __device__ void add_values(Scores& probabilities, uint32_t v, int warp_row, int key, bool masked) {
    if constexpr (kDropout) drop(probabilities, warp_row, key);
    const unsigned char* values = shared_ + (v - shared_address_);
    if (masked && limited(call_) && !all_finite<T, kKeys, kHeadDim>(values, lane())) {
      mark_nonfinite(values, warp_row, key);
      multiply_values<true>(probabilities, v);
    } else {
      multiply_values<false>(probabilities, v);
    }
  }

  __device__ void read_all_queries(uint32_t tile) {
#pragma unroll
    for (int d = 0; d < kHeadDim; d += 16) read_queries(queries_[d / 16], tile, d);
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

  /// O times `factor` of its sum, and the LSE. O goes through the warp's own rows of the query tile, for stores of 16
  /// bytes.
  template <class Factor>
  __device__ void write(int warp_row, uint32_t queries, const Factor& factor_of) {
    const Sequence s = sequence(call_, batch_);
    const Visibility visibility(call_, s);
    float* lse = call_.softmax_lse + s.lse_offset(call_, head_);
    unsigned char* staging = shared_ + (queries - shared_address_) + Layout::bytes(warp() * kWarpRows);
    __syncwarp();  // the other lanes have read their queries
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int row = m * 16 + r * 8 + accumulator_row(lane()), i = warp_row + row;
        const float sum = quad_sum(sum_[m][r]);
        const bool sees = i < s.end_q && !visibility.keys_of(i).empty();
        const float factor = factor_of(sum) * (kDropout ? dropout_scale(call_.dropout_threshold) : 1.0f);
        if (lane() % 4 == 0 && i < s.num_q) {
          // A row whose every score is -inf is no row without keys: NaN, like its output.
          const float log_sum = maximum_[m][r] == -INFINITY ? NAN : maximum_[m][r] * call_.softmax_scale + logf(sum);
          lse[i] = sees ? log_sum : -INFINITY;
        }
#pragma unroll
        for (int n = 0; n < kHeadDim / 8; ++n) {
          const float x = out_[m][n][2 * r] * factor, y = out_[m][n][2 * r + 1] * factor;
          *reinterpret_cast<uint32_t*>(staging + Layout::offset(row, n) + lane() % 4 * 4) =
              sees ? Element<T>::pack(x, y) : 0;
        }
      }
    }
    __syncwarp();
    T* out = s.q_rows<T>(call_, call_.out, head_);
    for (int e = lane(); e < kWarpRows * Layout::kChunks; e += 32) {
      const int row = e / Layout::kChunks, chunk = e % Layout::kChunks, i = warp_row + row;
      if (i < s.num_q && chunk * kChunkElements < call_.head_dim) {
        *reinterpret_cast<uint4*>(out + static_cast<int64_t>(i) * call_.out.row_stride + chunk * kChunkElements) =
            *reinterpret_cast<const uint4*>(staging + Layout::offset(row, chunk));
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

 private:
  __device__ void multiply_keys(Scores& scores, uint32_t queries, uint32_t keys) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) scores[m][n][e] = 0.0f;
      }
    }
    const FragmentReader<kHeadDim, Fragment::kB> k(keys, lane());
    // More at once would only fill the registers with fragments read ahead.
    constexpr int kFewSteps = kRowTiles > 1 && kHeadDim > 96 ? 2 : 4;
    constexpr int kUnroll = kTile.queries_in_registers ? kHeadDim / 16 : kFewSteps;
#pragma unroll kUnroll
    for (int d = 0; d < kHeadDim; d += 16) {
      if constexpr (!kTile.queries_in_registers) read_queries(queries_[0], queries, d);
      const uint32_t(&a)[kRowTiles][4] = queries_[kTile.queries_in_registers ? d / 16 : 0];
#pragma unroll
      for (int n = 0; n < kKeys; n += 16) {
        uint32_t b[4];
        k.load(b, n, d);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          Arch::template multiply_add<T>(scores[m][n / 8], a[m], b[0], b[1]);
          Arch::template multiply_add<T>(scores[m][n / 8 + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  __device__ void read_queries(uint32_t (&a)[kRowTiles][4], uint32_t queries, int column) const {
    const FragmentReader<kHeadDim, Fragment::kA> q(queries, lane(), warp() * kWarpRows);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) q.load(a[m], m * 16, column);
  }

  __device__ void hide(Scores& scores, int warp_row, int key) const {
    const Visibility visibility(call_, sequence(call_, batch_));  // read again: it is rarely asked, registers are few
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const Range visible = visibility.keys_of(warp_row + m * 16 + r * 8 + accumulator_row(lane()));
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
          for (int c = 0; c < 2; ++c) {
            const int j = key + n * 8 + accumulator_column(lane()) + c;
            if (j < visible.begin || j >= visible.end) scores[m][n][2 * r + c] = -INFINITY;
          }
        }
      }
    }
  }

  __device__ void drop(Scores& scores, int warp_row, int key) const {
    const Dropout dropout(call_, batch_, head_);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; n += 4) {
        dropout.apply(scores[m][n], scores[m][n + 1], scores[m][n + 2], scores[m][n + 3],
                      warp_row + m * 16 + accumulator_row(lane()), key + n * 8 + accumulator_column(lane()));
      }
    }
  }

  __device__ void mark_nonfinite(const unsigned char* values, int warp_row, int key) {
    const Visibility visibility(call_, sequence(call_, batch_));
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      const int i = warp_row + m * 16 + accumulator_row(lane());
      const Range seen[2] = {within(visibility.keys_of(i), key, kKeys), within(visibility.keys_of(i + 8), key, kKeys)};
      mark_seen<T, kHeadDim>(out_[m], values, seen, 0, lane());
    }
  }

  /// O += P V, or the finite part of V.
  template <bool kFinitePart>
  __device__ void multiply_values(const Scores& probabilities, uint32_t values) {
    const FragmentReader<kHeadDim, Fragment::kBTrans> v(values, lane());
#pragma unroll
    for (int j = 0; j < kKeys; j += 16) {
      uint32_t a[kRowTiles][4];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        accumulators_to_a<T>(a[m], probabilities[m][j / 8], probabilities[m][j / 8 + 1]);
      }
#pragma unroll
      for (int d = 0; d < kHeadDim; d += 16) {
        uint32_t b[4];
        v.load(b, j, d);
        if constexpr (kFinitePart) keep_finite<T>(b);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          Arch::template multiply_add<T>(out_[m][d / 8], a[m], b[0], b[1]);
          Arch::template multiply_add<T>(out_[m][d / 8 + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  uint32_t queries_[kTile.queries_in_registers ? kHeadDim / 16 : 1][kRowTiles][4];
};

}  // namespace strobe::cuda
