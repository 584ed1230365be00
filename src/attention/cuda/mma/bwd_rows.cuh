// The backward's small passes over rows: before the others what they need of every row, after them dQ from its sums.
#pragma once

#include "src/attention/cuda/common/geometry.cuh"
#include "src/attention/cuda/common/launch.h"
#include "src/attention/cuda/common/tile.cuh"
#include "src/attention/cuda/mma/bwd_scratch.h"

namespace strobe::cuda {

inline constexpr int kRowThreads = 256;
inline constexpr int kLanesPerRow = 8;
inline constexpr int kRowsPerBlock = kRowThreads / kLanesPerRow;

/// Which row a group of kLanesPerRow threads has: blocks of rows of every (sequence, query head), the spare tokens of a
/// varlen call as one more sequence.
struct RowPlace {
  Sequence s;
  int head, row, step;  // rows `row`, `row` + step, ... below s.num_q

  static __host__ __device__ int64_t blocks_per_head(const Call& c) {
    return max(1, (c.seqlen_q + kRowsPerBlock - 1) / kRowsPerBlock);
  }
  static int64_t num_blocks(const Call& c) {
    return blocks_per_head(c) * c.num_heads_q * (c.batch + (c.varlen() ? 1 : 0));
  }
  static __device__ RowPlace of_thread(const Call& c) {
    const int64_t per_head = blocks_per_head(c), batch_head = blockIdx.x / per_head;
    const int64_t batch = batch_head / c.num_heads_q;
    return {batch == c.batch ? spare_tokens(c) : sequence(c, batch), static_cast<int>(batch_head % c.num_heads_q),
            static_cast<int>(blockIdx.x % per_head) * kRowsPerBlock + static_cast<int>(threadIdx.x) / kLanesPerRow,
            static_cast<int>(per_head) * kRowsPerBlock};
  }
};

/// The sums of dQ like the rows of the LSE.
template <int kHeadDim>
struct RowSums {
  static __device__ int64_t begin(const Call& c, const Sequence& s, int head) {
    return s.lse_offset(c, head) * kHeadDim;
  }
  static __device__ int64_t per_head(const Call& c) { return (c.varlen() ? c.total_q : c.seqlen_q) * kHeadDim; }
  /// Rows that have sums, of a head with `rows`.
  static __device__ int held_rows(int rows) { return rows; }

  /// Columns `column` to `column` + 7 of row i.
  static __device__ void load(float (&x)[8], const float* sums, int i, int column) {
    const auto* from = reinterpret_cast<const float4*>(sums + int64_t{i} * kHeadDim + column);
    const float4 a = from[0], b = from[1];
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
  }
};

/// RowStats of every row, and zeros in the sums of dQ where there are some.
template <class T, int kHeadDim, class Sums>
__global__ __launch_bounds__(kRowThreads) void bwd_stats_kernel(const __grid_constant__ BwdCall call,
                                                                const __grid_constant__ BwdScratch scratch) {
  const auto [s, head, first, step] = RowPlace::of_thread(call);
  const int lane = static_cast<int>(threadIdx.x) % kLanesPerRow;
  const T* out = s.q_rows<T>(call, call.out, head);
  const T* grad_out = s.q_rows<T>(call, call.grad_out, head);
  const int64_t lse_begin = s.lse_offset(call, head);
  // All lanes of a warp go through the loop together: they shuffle.
  const int held = scratch.grad_q != nullptr && s.end_q > 0 ? Sums::held_rows(s.num_q) : 0, rows = max(s.num_q, held);
  for (int i = first; i - static_cast<int>(threadIdx.x) / kLanesPerRow < rows; i += step) {
    const float lse = i < s.end_q ? call.softmax_lse[lse_begin + i] : -INFINITY;
    const bool sees = lse != -INFINITY;
    float delta = 0.0f;
    for (int chunk = lane; sees && chunk * kChunkElements < call.head_dim; chunk += kLanesPerRow) {
      const int64_t column = chunk * kChunkElements;
      const auto o = *reinterpret_cast<const uint4*>(out + i * call.out.row_stride + column);
      const auto g = *reinterpret_cast<const uint4*>(grad_out + i * call.grad_out.row_stride + column);
      const uint32_t o_pairs[] = {o.x, o.y, o.z, o.w}, g_pairs[] = {g.x, g.y, g.z, g.w};
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        const float2 a = Element<T>::unpack(o_pairs[pair]), b = Element<T>::unpack(g_pairs[pair]);
        delta += a.x * b.x + a.y * b.y;
      }
    }
#pragma unroll
    for (int distance = kLanesPerRow / 2; distance > 0; distance /= 2) {
      delta += __shfl_xor_sync(0xFFFFFFFFu, delta, distance);
    }
    if (lane == 0 && i < s.num_q) {
      const float grad_lse = sees && call.grad_softmax_lse != nullptr ? call.grad_softmax_lse[lse_begin + i] : 0.0f;
      scratch.stats[lse_begin + i] = {sees ? -lse * kLog2E : 0.0f, delta - grad_lse};
    }
    if (i >= held) continue;
    float* sums = scratch.grad_q + Sums::begin(call, s, head) + int64_t{i} * kHeadDim;
    for (int column = lane * 4; column < kHeadDim; column += kLanesPerRow * 4) {
      *reinterpret_cast<float4*>(sums + column) = float4{0, 0, 0, 0};
    }
  }
}

/// dQ = softmax_scale * its sums, rounded; zeros in rows that do not count. Sums: where they stand.
template <class T, class Sums>
__global__ __launch_bounds__(kRowThreads) void bwd_grad_q_kernel(const __grid_constant__ BwdCall call,
                                                                 const __grid_constant__ BwdScratch scratch) {
  const auto [s, head, first, step] = RowPlace::of_thread(call);
  const int lane = static_cast<int>(threadIdx.x) % kLanesPerRow;
  T* grad_q = s.q_rows<T>(call, call.grad_q, head);
  const float* sums = scratch.grad_q + Sums::begin(call, s, head);
  for (int i = first; i < s.num_q; i += step) {
    for (int chunk = lane; chunk * kChunkElements < call.head_dim; chunk += kLanesPerRow) {
      const int column = chunk * kChunkElements;
      uint4 result{0, 0, 0, 0};
      if (i < s.end_q) {
        float x[kChunkElements];
        Sums::load(x, sums, i, column);
        const float scale = call.softmax_scale;
        result = {Element<T>::pack(x[0] * scale, x[1] * scale), Element<T>::pack(x[2] * scale, x[3] * scale),
                  Element<T>::pack(x[4] * scale, x[5] * scale), Element<T>::pack(x[6] * scale, x[7] * scale)};
      }
      *reinterpret_cast<uint4*>(grad_q + i * call.grad_q.row_stride + column) = result;
    }
  }
}

}  // namespace strobe::cuda
