// FlashAttention-2 forward (Dao 2023, arXiv 2307.08691, Algorithm 1): a block takes one tile of query rows of one head
// and walks over the key blocks that its rows see; each warp keeps its own rows' scores, maximum, sum and output in
// registers, so the warps share nothing but the loads of K and V.
#pragma once

#include <type_traits>

#include "src/attention/cuda/common/dropout.cuh"
#include "src/attention/cuda/common/geometry.cuh"
#include "src/attention/cuda/common/launch.h"
#include "src/attention/cuda/common/tile.cuh"
#include "src/attention/cuda/sm80/config.h"
#include "src/attention/cuda/sm80/kernels.h"
#include "src/attention/cuda/sm80/nonfinite.cuh"

namespace strobe::cuda::sm80 {

// The running maximum follows the row's true one only where it is behind by more than this (in powers of two): what it
// is for is to keep the exponentials in range, and P up to 2^8 is. O is then rescaled rarely. The decision is the
// row's own, so no row's result depends on its neighbours.
inline constexpr float kMaximumLag = 8.0f;

template <class T, int kHeadDim, bool kDropout>
class ImpFlashFwd {
 public:
  static constexpr FwdTile kTile = fwd_tile(kHeadDim, kDropout);
  static constexpr int kRows = kTile.rows(), kKeys = kTile.keys, kThreads = kTile.threads(),
                       kRowTiles = kTile.row_tiles;
  static constexpr int kWarpRows = kRowTiles * 16;
  using Layout = TileLayout<kHeadDim>;
  static constexpr int kStageBytes = 2 * Layout::bytes(kKeys);  // K and V
  static constexpr int kSharedBytes = Layout::bytes(kRows) + 2 * kStageBytes;
  static_assert(kSharedBytes <= kSharedMemory);

  __device__ ImpFlashFwd(const FwdCall& call, unsigned char* shared)
      : call_(call), shared_(shared), shared_address_(shared_address(shared)) {}

  /// Block `index` of num_blocks.
  __device__ void run(int64_t index) {
    const int tiles = num_tiles(call_);
    const int tile = tiles - 1 - static_cast<int>(index % tiles);  // under a causal mask the longest first
    const int64_t batch_head = index / tiles;
    head_ = static_cast<int>(batch_head % call_.num_heads_q);
    batch_ = batch_head / call_.num_heads_q;
    if (batch_ == call_.batch) {
      const Sequence spare = spare_tokens(call_);
      for (int first = tile * kRows; first < spare.num_q; first += tiles * kRows) write_hidden(spare, first);
      return;
    }
    const Sequence s = sequence(call_, batch_);
    const int first = tile * kRows;
    if (first >= s.num_q) return;
    const Range keys = Visibility(call_, s).keys_of_rows(first, first + kRows);
    if (keys.empty()) {
      write_hidden(s, first);
    } else {
      attend(s, first, keys);
      write(first + warp() * kWarpRows);
    }
  }

  static int64_t num_blocks(const FwdCall& call) {
    return int64_t{num_tiles(call)} * call.num_heads_q * (call.batch + (call.varlen() ? 1 : 0));
  }

 private:
  static __host__ __device__ int num_tiles(const FwdCall& call) { return max(1, (call.seqlen_q + kRows - 1) / kRows); }
  static __device__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
  static __device__ int warp() { return static_cast<int>(threadIdx.x) / 32; }

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

  __device__ uint32_t k_tile(int stage) const {
    return shared_address_ + static_cast<uint32_t>(Layout::bytes(kRows) + stage * kStageBytes);
  }
  __device__ uint32_t v_tile(int stage) const { return k_tile(stage) + Layout::bytes(kKeys); }

  __device__ void attend(const Sequence& s, int first, Range keys) {
    const int head_k = head_ / call_.group();
    const RowSource q{s.q_rows<T>(call_, call_.q, head_), call_.q.row_stride, 0, s.end_q, call_.head_dim};
    const RowSource k{s.k_rows<T>(call_, call_.k, head_k), call_.k.row_stride, keys.begin, keys.end, call_.head_dim};
    const RowSource v{s.k_rows<T>(call_, call_.v, head_k), call_.v.row_stride, keys.begin, keys.end, call_.head_dim};
    const auto load = [&](int stage, int key) {
      copy_tile_async<kKeys, kHeadDim, kThreads>(k_tile(stage), k, key, static_cast<int>(threadIdx.x));
      copy_tile_async<kKeys, kHeadDim, kThreads>(v_tile(stage), v, key, static_cast<int>(threadIdx.x));
    };
    copy_tile_async<kRows, kHeadDim, kThreads>(shared_address_, q, first, static_cast<int>(threadIdx.x));
    int key = keys.begin / kKeys * kKeys;
    load(0, key);
    cp_async_commit();

    const int warp_row = first + warp() * kWarpRows;
    const Visibility visibility(call_, s);
    const Range some = visibility.keys_of_rows(warp_row, warp_row + kWarpRows);
    const Range all = visibility.keys_of_all_rows(warp_row, warp_row + kWarpRows);
    start();
    for (int stage = 0; key < keys.end; key += kKeys, stage ^= 1) {
      cp_async_wait<0>();
      __syncthreads();  // the stage has arrived, and nobody reads the other one any more
      if (key + kKeys < keys.end) load(stage ^ 1, key + kKeys);
      cp_async_commit();
      if (key >= some.end || key + kKeys <= some.begin) continue;
      step(stage, warp_row, key, key < all.begin || key + kKeys > all.end);
    }
  }

  __device__ void start() {
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
    if constexpr (kTile.queries_in_registers) {
      cp_async_wait<0>();
      __syncthreads();
#pragma unroll
      for (int d = 0; d < kHeadDim; d += 16) read_queries(queries_[d / 16], d);
    }
  }

  __device__ void step(int stage, int warp_row, int key, bool masked) {
    float scores[kRowTiles][kKeys / 8][4] = {};
    multiply_keys(scores, stage);
    if (masked) hide(scores, warp_row, key);
    exponentiate(scores);
    if constexpr (kDropout) {
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
    const unsigned char* v = shared_ + (v_tile(stage) - shared_address_);
    if (masked && limited(call_) && !all_finite<T, kKeys, kHeadDim>(v, lane())) {
      mark_nonfinite(v, warp_row, key);
      multiply_values<true>(scores, stage);
    } else {
      multiply_values<false>(scores, stage);
    }
  }

  __device__ void mark_nonfinite(const unsigned char* v, int warp_row, int key) {
    const Visibility visibility(call_, sequence(call_, batch_));
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      const int i = warp_row + m * 16 + accumulator_row(lane());
      const Range seen[2] = {within(visibility.keys_of(i), key, kKeys), within(visibility.keys_of(i + 8), key, kKeys)};
      mark_seen<T, kHeadDim>(out_[m], v, seen, 0, lane());
    }
  }

  /// scores += Q K^T.
  __device__ void multiply_keys(float (&scores)[kRowTiles][kKeys / 8][4], int stage) {
    const FragmentReader<kHeadDim, Fragment::kB> k(k_tile(stage), lane());
    // More at once would only fill the registers with fragments read ahead.
    constexpr int kUnroll = kTile.queries_in_registers ? kHeadDim / 16 : 4;
#pragma unroll kUnroll
    for (int d = 0; d < kHeadDim; d += 16) {
      if constexpr (!kTile.queries_in_registers) read_queries(queries_[0], d);
      const uint32_t(&a)[kRowTiles][4] = queries_[kTile.queries_in_registers ? d / 16 : 0];
#pragma unroll
      for (int n = 0; n < kKeys; n += 16) {
        uint32_t b[4];
        k.load(b, n, d);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          Element<T>::mma_m16n8k16(scores[m][n / 8], a[m], b[0], b[1]);
          Element<T>::mma_m16n8k16(scores[m][n / 8 + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  __device__ void read_queries(uint32_t (&a)[kRowTiles][4], int column) const {
    const FragmentReader<kHeadDim, Fragment::kA> q(shared_address_, lane(), warp() * kWarpRows);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) q.load(a[m], m * 16, column);
  }

  __device__ void hide(float (&scores)[kRowTiles][kKeys / 8][4], int warp_row, int key) const {
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

  /// Scores become probabilities times 2^(...) of the running maximum; the sums and, where it must be, O follow.
  __device__ void exponentiate(float (&scores)[kRowTiles][kKeys / 8][4]) {
    const float to_exponent = call_.softmax_scale * kLog2E;
    float maximum[kRowTiles][2];
    bool behind = false;
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
        behind |= (maximum[m][r] - maximum_[m][r]) * to_exponent > kMaximumLag;
      }
    }
    if (__any_sync(0xFFFFFFFFu, behind)) rescale(maximum, to_exponent);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        // No key seen so far: exp2(-inf - 0) = 0 instead of exp2(-inf + inf).
        const float shift = maximum_[m][r] == -INFINITY ? 0.0f : -maximum_[m][r] * to_exponent;
        float sum = 0.0f;
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
          for (int c = 0; c < 2; ++c) {
            float& x = scores[m][n][2 * r + c];
            x = exp2_approx(fmaf(x, to_exponent, shift));
            sum += x;
          }
        }
        sum_[m][r] += sum;
      }
    }
  }

  __device__ void rescale(const float (&maximum)[kRowTiles][2], float to_exponent) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if (!((maximum[m][r] - maximum_[m][r]) * to_exponent > kMaximumLag)) continue;
        const float factor = exp2_approx((maximum_[m][r] - maximum[m][r]) * to_exponent);
        maximum_[m][r] = maximum[m][r];
        sum_[m][r] *= factor;
#pragma unroll
        for (int n = 0; n < kHeadDim / 8; ++n) {
          out_[m][n][2 * r] *= factor;
          out_[m][n][2 * r + 1] *= factor;
        }
      }
    }
  }

  /// O += P V, or the finite part of V.
  template <bool kFinitePart>
  __device__ void multiply_values(const float (&probabilities)[kRowTiles][kKeys / 8][4], int stage) {
    const FragmentReader<kHeadDim, Fragment::kBTrans> v(v_tile(stage), lane());
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
          Element<T>::mma_m16n8k16(out_[m][d / 8], a[m], b[0], b[1]);
          Element<T>::mma_m16n8k16(out_[m][d / 8 + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  /// O / l and the LSE. O goes through the warp's own rows of the query tile, for stores of 16 bytes.
  __device__ void write(int warp_row) {
    const Sequence s = sequence(call_, batch_);
    const Visibility visibility(call_, s);
    float* lse = call_.softmax_lse + s.lse_offset(call_, head_);
    unsigned char* staging = shared_ + Layout::bytes(warp() * kWarpRows);
    __syncwarp();  // the other lanes have read their queries
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int row = m * 16 + r * 8 + accumulator_row(lane()), i = warp_row + row;
        const float sum = quad_sum(sum_[m][r]);
        const bool sees = i < s.end_q && !visibility.keys_of(i).empty();
        const float factor = (kDropout ? dropout_scale(call_.dropout_threshold) : 1.0f) / sum;
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
  uint32_t queries_[kTile.queries_in_registers ? kHeadDim / 16 : 1][kRowTiles][4];
};

template <class Kernel>
__global__ __launch_bounds__(Kernel::kThreads, 1) void imp_flash_fwd_kernel(const __grid_constant__ FwdCall call) {
  Kernel(call, dynamic_shared_memory()).run(blockIdx.x);
}

template <class T, int kHeadDim>
void imp_flash_fwd(const FwdCall& call, void* stream) {
  const auto start = [&]<bool kDropout>(std::bool_constant<kDropout>) {
    using Kernel = ImpFlashFwd<T, kHeadDim, kDropout>;
    launch("attention_forward", imp_flash_fwd_kernel<Kernel>, Kernel::num_blocks(call), Kernel::kThreads,
           Kernel::kSharedBytes, stream, call);
  };
  call.rng_state == nullptr ? start(std::false_type()) : start(std::true_type());
}

}  // namespace strobe::cuda::sm80
