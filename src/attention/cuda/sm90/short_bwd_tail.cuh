// The one key behind those that warps own, as in 257 = 16 * 16 + 1. Its dV and dK are sums over the rows, each tile of
// which some warp has; another adds them up.
#pragma once

#include "src/attention/cuda/sm80/short_tile.cuh"
#include "src/attention/cuda/sm90/short_bwd_block.cuh"

namespace strobe::cuda::sm90 {

/// The key behind those that warps own, for 16 rows: its dS goes to `ds_tile`, its part of dV and dK is added to
/// `sums`, or begins them.
template <class T, int kColumns>
__device__ void add_tail(const Block& b, const Rows& k, const Rows& v, const Rows& q, const RowTerms* terms,
                         uint32_t ds_tile, float* sums, bool begins) {
  constexpr int kSteps = kColumns / 16;
  const int lane = fresh_thread_index() % 32;
  const auto a = a_lanes<kColumns>(lane);
  const auto rows = b_lanes<kColumns>(lane);
  float p[2][4] = {}, ds[2][4] = {};
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    uint32_t key[4], row[4];
    a.load(key, k, 0, 16 * step);
    rows.load(row, q, 0, 16 * step);
    Element<T>::mma_m16n8k16(p[0], key, row[0], row[1]);
    Element<T>::mma_m16n8k16(p[1], key, row[2], row[3]);
    a.load(key, v, 0, 16 * step);
    rows.load(row, q, slot_rows(kColumns), 16 * step);
    Element<T>::mma_m16n8k16(ds[0], key, row[0], row[1]);
    Element<T>::mma_m16n8k16(ds[1], key, row[2], row[3]);
  }
  // The key is row 0 of both, which four lanes have; the others are zeros from here on.
  uint32_t p_pair[2], ds_pair[2];
#pragma unroll
  for (int t = 0; t < 2; ++t) {
    float x[2], y[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const RowTerms of_row = terms[8 * t + accumulator_column(lane) + e];
      x[e] = exp2_approx(p[t][e] * (b.c.softmax_scale * kLog2E) - of_row.base);
      y[e] = x[e] * (ds[t][e] + of_row.minus_delta);
    }
    p_pair[t] = lane < 4 ? Element<T>::pack(x[0], x[1]) : 0;
    ds_pair[t] = lane < 4 ? Element<T>::pack(y[0], y[1]) : 0;
    if (lane < 4) store_shared_32(ds_tile + t * kChunkBytes + lane * 4, ds_pair[t]);
  }
  const auto transposed = a_trans_lanes<kColumns>(lane);
#pragma unroll
  for (int tensor = 0; tensor < 2; ++tensor) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint32_t columns[4];
      transposed.load(columns, q, tensor == 0 ? slot_rows(kColumns) : 0, 16 * step);
      float* const sum = sums + tensor * kColumns + 16 * step + lane / 4;  // of the lanes that have key 0
      const bool mine = lane % 4 == 0;
      float out[4] = {mine && !begins ? sum[0] : 0.0f, 0.0f, mine && !begins ? sum[8] : 0.0f, 0.0f};
      const uint32_t(&pair)[2] = tensor == 0 ? p_pair : ds_pair;
      Element<T>::mma_m16n8k16(out, columns, pair[0], pair[1]);
      if (mine) sum[0] = out[0], sum[8] = out[2];
    }
  }
}

/// Adds up what the warps have of the tail's dV and dK, in one order, and writes it.
template <class T, int kColumns>
__device__ void write_tails(const Block& b) {
  const Barriers barriers = b.barriers();
  const int key = b.plan.key_tiles * kTile;
  uint32_t n = 0;
#pragma unroll 1
  for (uint32_t unit = blockIdx.x; unit < b.plan.units; unit += gridDim.x, ++n) {
    const Unit u(b.c, unit);
    mbarrier_wait(barriers.tail_full(), n & 1);
    const int sums = min(b.plan.row_tiles, kWarps);
#pragma unroll 1
    for (int pair = b.lane; pair < kColumns; pair += 32) {
      const bool of_k = pair >= kColumns / 2;
      const int column = (of_k ? pair - kColumns / 2 : pair) * 2;
      float x = 0.0f, y = 0.0f;
#pragma unroll 1
      for (int i = 0; i < sums; ++i) {
        x += b.tail_sums<kColumns>(i)[2 * pair];
        y += b.tail_sums<kColumns>(i)[2 * pair + 1];
      }
      if (column >= b.c.head_dim) continue;
      const Strided& to = of_k ? b.c.grad_k : b.c.grad_v;
      const float factor = of_k ? b.c.softmax_scale : 1.0f;
      *reinterpret_cast<uint32_t*>(u.rows<T>(to) + key * to.row_stride + column) =
          Element<T>::pack(x * factor, y * factor);
    }
    __syncwarp();
    mbarrier_arrive_if(b.lane == 0, barriers.tail_empty());
  }
}

}  // namespace strobe::cuda::sm90
