// dQ alone, over query blocks: the part of the backward that has no order of sums to care about when it is not left to
// the pass over the keys. S and dP are computed again; dS is, rounded, the left operand of dQ += dS K.
#pragma once

#include "src/attention/cuda/common/dropout.cuh"
#include "src/attention/cuda/common/geometry.cuh"
#include "src/attention/cuda/common/launch.h"
#include "src/attention/cuda/mma/arch.cuh"
#include "src/attention/cuda/mma/nonfinite.cuh"
#include "src/attention/cuda/mma/query_tiles.cuh"

namespace strobe::cuda {

template <class Arch, class T, int kHeadDim, bool kDropout>
class ImpFlashBwdQ {
 public:
  static constexpr BwdQTile kTile = Arch::bwd_q_tile(kHeadDim);
  static constexpr int kRows = kTile.rows(), kKeys = kTile.keys, kThreads = kTile.threads();
  using Layout = TileLayout<kHeadDim>;
  static constexpr int kRowBytes = Layout::bytes(kRows), kKeyBytes = Layout::bytes(kKeys);
  static constexpr int kSharedBytes = 2 * kRowBytes + 4 * kKeyBytes;
  static_assert(kSharedBytes <= Arch::kSharedMemory);
  using Tiles = QueryTiles<ImpFlashBwdQ, kRows>;

  __device__ ImpFlashBwdQ(const BwdCall& call, const BwdScratch& scratch, unsigned char* shared)
      : call_(call), scratch_(scratch), shared_(shared), shared_address_(shared_address(shared)) {}

  __device__ void set_head(int64_t batch, int head) {
    batch_ = batch;
    head_ = head;
  }

  __device__ void write_hidden(const Sequence& s, int first) const {
    const int rows = min(kRows, s.num_q - first), chunks = call_.head_dim / kChunkElements;
    T* grad_q = s.q_rows<T>(call_, call_.grad_q, head_);
    for (int e = thread(); e < rows * chunks; e += kThreads) {
      T* row = grad_q + static_cast<int64_t>(first + e / chunks) * call_.grad_q.row_stride;
      *reinterpret_cast<uint4*>(row + e % chunks * kChunkElements) = uint4{0, 0, 0, 0};
    }
  }

  __device__ void compute(const Sequence& s, int first, const Range& keys) {
    const int head_k = head_ / call_.group();
    const RowSource q{s.q_rows<T>(call_, call_.q, head_), call_.q.row_stride, 0, s.end_q, call_.head_dim};
    const RowSource grad_out{s.q_rows<T>(call_, call_.grad_out, head_), call_.grad_out.row_stride, 0, s.end_q,
                             call_.head_dim};
    const RowSource k{s.k_rows<T>(call_, call_.k, head_k), call_.k.row_stride, keys.begin, keys.end, call_.head_dim};
    const RowSource v{s.k_rows<T>(call_, call_.v, head_k), call_.v.row_stride, keys.begin, keys.end, call_.head_dim};
    typename Arch::template TileCopy<kRows, kHeadDim, kThreads> rows_copy;
    typename Arch::template TileCopy<kKeys, kHeadDim, kThreads> k_copy, v_copy;
    const auto load = [&](int stage, int key) {
      k_copy.start(k_tile(stage), k, key, thread());
      v_copy.start(v_tile(stage), v, key, thread());
    };
    const auto arrive = [&] {
      k_copy.finish(thread());
      v_copy.finish(thread());
      Arch::wait();
      __syncthreads();  // the stage has arrived, and nobody reads the other one any more
    };
    rows_copy.start(q_tile(), q, first, thread());
    rows_copy.finish(thread());
    rows_copy.start(grad_out_tile(), grad_out, first, thread());
    rows_copy.finish(thread());
    int key = keys.begin / kKeys * kKeys;
    load(0, key);
    Arch::commit();

    const int warp_row = first + warp() * 16;
    const Visibility visibility(call_, s);
    const Range some = visibility.keys_of_rows(warp_row, warp_row + 16);
    const Range all = visibility.keys_of_all_rows(warp_row, warp_row + 16);
    start(s, warp_row);
    for (int stage = 0; key < keys.end; key += kKeys, stage ^= 1) {
      arrive();
      if (key + kKeys < keys.end) load(stage ^ 1, key + kKeys);
      Arch::commit();
      if (key >= some.end || key + kKeys <= some.begin) continue;
      step(stage, warp_row, key, key < all.begin || key + kKeys > all.end);
    }
    write(warp_row);
  }

 private:
  static constexpr bool kOperandsInRegisters = kHeadDim <= 64;  // Q and dO; else read again for every tile of keys
  static constexpr int kFragments = kOperandsInRegisters ? kHeadDim / 16 : 1;

  static __device__ int thread() { return static_cast<int>(threadIdx.x); }
  static __device__ int lane() { return thread() % 32; }
  static __device__ int warp() { return thread() / 32; }

  __device__ uint32_t q_tile() const { return shared_address_; }
  __device__ uint32_t grad_out_tile() const { return shared_address_ + kRowBytes; }
  __device__ uint32_t k_tile(int stage) const { return shared_address_ + 2 * kRowBytes + stage * 2 * kKeyBytes; }
  __device__ uint32_t v_tile(int stage) const { return k_tile(stage) + kKeyBytes; }

  __device__ void start(const Sequence& s, int warp_row) {
    const RowStats* stats = scratch_.stats + s.lse_offset(call_, head_);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int i = warp_row + r * 8 + accumulator_row(lane());
      stats_[r] = i < s.end_q ? stats[i] : RowStats{0.0f, 0.0f};
    }
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) grad_q_[n][e] = 0.0f;
    }
    if constexpr (kOperandsInRegisters) {
      Arch::wait();
      __syncthreads();
      const FragmentReader<kHeadDim, Fragment::kA> q(q_tile(), lane(), warp() * 16);
      const FragmentReader<kHeadDim, Fragment::kA> grad_out(grad_out_tile(), lane(), warp() * 16);
#pragma unroll
      for (int d = 0; d < kHeadDim; d += 16) {
        q.load(q_[d / 16], 0, d);
        grad_out.load(grad_out_[d / 16], 0, d);
      }
    }
  }

  __device__ void step(int stage, int warp_row, int key, bool masked) {
    float p[kKeys / 8][4] = {}, ds[kKeys / 8][4] = {};
    multiply_transposed(p, q_, q_tile(), k_tile(stage));
    multiply_transposed(ds, grad_out_, grad_out_tile(), v_tile(stage));
    if (masked) hide(p, -INFINITY, warp_row, key);
    if constexpr (kDropout) drop(ds, warp_row, key);
    const float to_exponent = call_.softmax_scale * kLog2E;
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const RowStats& row = stats_[e / 2];
        ds[n][e] = exp2_approx(fmaf(p[n][e], to_exponent, row.shift)) * (ds[n][e] - row.delta);
      }
    }
    if (masked) hide(ds, 0.0f, warp_row, key);
    const unsigned char* k = shared_ + (k_tile(stage) - shared_address_);
    if (masked && limited(call_) && !all_finite<T, kKeys, kHeadDim>(k, lane())) {
      const Visibility visibility(call_, sequence(call_, batch_));
      const int i = warp_row + accumulator_row(lane());
      const Range seen[2] = {within(visibility.keys_of(i), key, kKeys), within(visibility.keys_of(i + 8), key, kKeys)};
      mark_seen<T, kHeadDim>(grad_q_, k, seen, 0, lane());
      multiply_keys<true>(ds, stage);
    } else {
      multiply_keys<false>(ds, stage);
    }
  }

  /// products += rows of this warp (16 of Q or dO) times rows of K or V, transposed.
  __device__ void multiply_transposed(float (&products)[kKeys / 8][4], const uint32_t (&fragments)[kFragments][4],
                                      uint32_t rows_tile, uint32_t keys_tile) const {
    const FragmentReader<kHeadDim, Fragment::kA> rows(rows_tile, lane(), warp() * 16);
    const FragmentReader<kHeadDim, Fragment::kB> keys(keys_tile, lane());
#pragma unroll
    for (int d = 0; d < kHeadDim; d += 16) {
      uint32_t a[4];
      if constexpr (kOperandsInRegisters) {
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = fragments[d / 16][i];
      } else {
        rows.load(a, 0, d);
      }
#pragma unroll
      for (int n = 0; n < kKeys; n += 16) {
        uint32_t b[4];
        keys.load(b, n, d);
        Arch::template multiply_add<T>(products[n / 8], a, b[0], b[1]);
        Arch::template multiply_add<T>(products[n / 8 + 1], a, b[2], b[3]);
      }
    }
  }

  /// dQ += dS K, or the finite part of K.
  template <bool kFinitePart>
  __device__ void multiply_keys(const float (&ds)[kKeys / 8][4], int stage) {
    const FragmentReader<kHeadDim, Fragment::kBTrans> k(k_tile(stage), lane());
#pragma unroll
    for (int j = 0; j < kKeys; j += 16) {
      uint32_t a[4];
      accumulators_to_a<T>(a, ds[j / 8], ds[j / 8 + 1]);
#pragma unroll
      for (int d = 0; d < kHeadDim; d += 16) {
        uint32_t b[4];
        k.load(b, j, d);
        if constexpr (kFinitePart) keep_finite<T>(b);
        Arch::template multiply_add<T>(grad_q_[d / 8], a, b[0], b[1]);
        Arch::template multiply_add<T>(grad_q_[d / 8 + 1], a, b[2], b[3]);
      }
    }
  }

  /// Sets what is not visible.
  __device__ void hide(float (&x)[kKeys / 8][4], float value, int warp_row, int key) const {
    const Visibility visibility(call_, sequence(call_, batch_));
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const Range visible = visibility.keys_of(warp_row + r * 8 + accumulator_row(lane()));
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const int j = key + n * 8 + accumulator_column(lane()) + c;
          if (j < visible.begin || j >= visible.end) x[n][2 * r + c] = value;
        }
      }
    }
  }

  __device__ void drop(float (&dp)[kKeys / 8][4], int warp_row, int key) const {
    const Dropout dropout(call_, batch_, head_);
    const float scale = dropout_scale(call_.dropout_threshold);
    const int row = warp_row + accumulator_row(lane());
    if constexpr (kKeys % 32 == 0) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; n += 4) {
        dropout.apply(dp[n], dp[n + 1], dp[n + 2], dp[n + 3], row, key + n * 8 + accumulator_column(lane()));
      }
    } else {  // half of 32 columns: what the other half would get goes nowhere
      static_assert(kKeys == 16);
      float other[2][4];
      const int column = key / 32 * 32 + accumulator_column(lane());
      if (key % 32 == 0) {
        dropout.apply(dp[0], dp[1], other[0], other[1], row, column);
      } else {
        dropout.apply(other[0], other[1], dp[0], dp[1], row, column);
      }
    }
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) dp[n][e] *= scale;
    }
  }

  /// Rounds dQ, through the warp's own rows of the query tile for stores of 16 bytes.
  __device__ void write(int warp_row) const {
    const Sequence s = sequence(call_, batch_);
    unsigned char* staging = shared_ + Layout::bytes(warp() * 16);
    __syncwarp();
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const bool counts = warp_row + r * 8 + accumulator_row(lane()) < s.end_q;
        const float x = grad_q_[n][2 * r] * call_.softmax_scale, y = grad_q_[n][2 * r + 1] * call_.softmax_scale;
        *reinterpret_cast<uint32_t*>(staging + Layout::offset(r * 8 + accumulator_row(lane()), n) + lane() % 4 * 4) =
            counts ? Element<T>::pack(x, y) : 0;
      }
    }
    __syncwarp();
    T* grad_q = s.q_rows<T>(call_, call_.grad_q, head_);
    for (int e = lane(); e < 16 * Layout::kChunks; e += 32) {
      const int row = e / Layout::kChunks, chunk = e % Layout::kChunks, i = warp_row + row;
      if (i < s.num_q && chunk * kChunkElements < call_.head_dim) {
        *reinterpret_cast<uint4*>(grad_q + static_cast<int64_t>(i) * call_.grad_q.row_stride + chunk * kChunkElements) =
            *reinterpret_cast<const uint4*>(staging + Layout::offset(row, chunk));
      }
    }
  }

  const BwdCall& call_;
  const BwdScratch& scratch_;
  unsigned char* shared_;
  uint32_t shared_address_;
  int64_t batch_ = 0;
  int head_ = 0;
  RowStats stats_[2];
  float grad_q_[kHeadDim / 8][4];
  uint32_t q_[kFragments][4], grad_out_[kFragments][4];
};

template <class Kernel>
__global__ __launch_bounds__(Kernel::kThreads,
                             1) void imp_flash_bwd_q_kernel(const __grid_constant__ BwdCall call,
                                                            const __grid_constant__ BwdScratch scratch) {
  Kernel kernel(call, scratch, dynamic_shared_memory());
  Kernel::Tiles::run(kernel, call, blockIdx.x);
}

}  // namespace strobe::cuda
