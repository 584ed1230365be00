// What the warps of a block of the streamed backward share: barriers and rings in shared memory, and how the rows there
// are read.
#pragma once

#include "src/attention/cuda/common/geometry.cuh"
#include "src/attention/cuda/common/tile.cuh"
#include "src/attention/cuda/sm90/boxes.cuh"
#include "src/attention/cuda/sm90/short_bwd_config.h"
#include "src/attention/cuda/sm90/stores.cuh"
#include "src/attention/cuda/sm90/wgmma.cuh"

namespace strobe::cuda::sm90 {

/// For the copy engine: the first 64 columns of rows, and the others.
struct RowMaps {
  TensorMap wide, narrow;
};
struct StreamMaps {
  RowMaps q, k, v, grad_out, out, grad_q, grad_k, grad_v;
};

/// Of one row: base of the exponent, and dLSE - delta.
struct RowTerms {
  float base, minus_delta;
};

/// A slot of a ring, and how often the ring has come round to it.
struct Slot {
  uint32_t index = 0, round = 0;
  __device__ void advance(uint32_t slots) {
    if (++index == slots) index = 0, ++round;
  }
  /// So many steps on or ago, at most `slots`.
  __device__ Slot after(uint32_t steps, uint32_t slots) const {
    return index + steps < slots ? Slot{index + steps, round} : Slot{index + steps - slots, round + 1};
  }
  __device__ Slot before(uint32_t steps, uint32_t slots) const {
    return index < steps ? Slot{index + slots - steps, round - 1} : Slot{index - steps, round};
  }
};

/// The barriers at the start of shared memory.
class Barriers {
 public:
  __device__ explicit Barriers(uint32_t base) : base_(base) {}
  __device__ uint32_t kv_full(uint32_t i) const { return base_ + 8 * i; }
  __device__ uint32_t kv_empty(uint32_t i) const { return base_ + 16 + 8 * i; }
  __device__ uint32_t tail_full() const { return base_ + 32; }
  __device__ uint32_t tail_empty() const { return base_ + 40; }
  __device__ uint32_t q_full(uint32_t i) const { return base_ + 48 + 8 * i; }
  __device__ uint32_t q_empty(uint32_t i) const { return q_full(i) + 8 * kMostSlots; }
  __device__ uint32_t ds_full(uint32_t i) const { return q_full(i) + 16 * kMostSlots; }
  __device__ uint32_t ds_empty(uint32_t i) const { return q_full(i) + 24 * kMostSlots; }
  __device__ uint32_t terms_full(uint32_t i) const { return q_full(i) + 32 * kMostSlots; }

 private:
  uint32_t base_;
};

/// Which head of which sequence a unit of work is.
struct Unit {
  int64_t batch;
  int head;
  __device__ Unit(const Call& c, uint32_t unit)
      : batch(unit / static_cast<uint32_t>(c.num_heads_q)),
        head(static_cast<int>(unit % static_cast<uint32_t>(c.num_heads_q))) {}
  template <class T>
  __device__ T* rows(const Strided& t) const {
    return static_cast<T*>(t.data) + batch * t.batch_stride + head * t.head_stride;
  }
};

/// Rows as the copy engine lays them out: their first 64 columns at `wide`, the others, up to 16, at `narrow`.
struct Rows {
  static constexpr int kWide = 64, kNarrow = 16;
  uint32_t wide, narrow;
  __device__ Rows from(int row) const {
    return {wide + TileLayout<kWide>::bytes(row), narrow + TileLayout<kNarrow>::bytes(row)};
  }
};

/// Where a lane's row of a fragment stands in Rows.
template <int kColumns, bool kTransposed>
class Lanes {
  static_assert(kColumns == 64 || kColumns == 80);

 public:
  /// The lane's row, and which of the two chunks.
  __device__ Lanes(int row, int chunk)
      : wide_(TileLayout<Rows::kWide>::offset(row, chunk)), narrow_(TileLayout<Rows::kNarrow>::offset(row, chunk)) {}
  /// The fragment that begins at a row and a column, known at compile time; `rows` is uniform, what is added to it the
  /// lane's.
  __device__ void load(uint32_t (&r)[4], const Rows& rows, int row, int column) const {
    if constexpr (kTransposed) {
      ldmatrix_x4_trans(r, address(rows, row, column));
    } else {
      ldmatrix_x4(r, address(rows, row, column));
    }
  }
  __device__ void store(const uint32_t (&r)[4], const Rows& rows, int row, int column) const {
    stmatrix_x4(address(rows, row, column), r);
  }

 private:
  __device__ uint32_t address(const Rows& rows, int row, int column) const {
    return column < Rows::kWide
               ? rows.wide + (wide_ ^ static_cast<uint32_t>(column * 2)) + TileLayout<Rows::kWide>::bytes(row)
               : rows.narrow + narrow_ + TileLayout<Rows::kNarrow>::bytes(row);
  }

  uint32_t wide_, narrow_;
};
/// The four kinds of Fragment.
template <int kColumns>
__device__ inline auto a_lanes(int lane) {
  return Lanes<kColumns, false>(lane % 16, lane / 16);
}
template <int kColumns>
__device__ inline auto b_trans_lanes(int lane) {
  return Lanes<kColumns, true>(lane % 16, lane / 16);
}
template <int kColumns>
__device__ inline auto b_lanes(int lane) {
  return Lanes<kColumns, false>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
}
template <int kColumns>
__device__ inline auto a_trans_lanes(int lane) {
  return Lanes<kColumns, true>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
}

/// What all warps of a block know.
struct Block {
  const BwdCall& c;
  const StreamPlan& plan;
  const StreamMaps& maps;
  uint32_t base;
  int lane;
  __device__ Barriers barriers() const { return Barriers(base); }
  /// K of the head in slot i, and V plan.kv_rows rows further.
  __device__ Rows k_rows(uint32_t i) const {
    const uint32_t wide = base + kHeader + i * plan.head_bytes;
    return {wide, wide + 2 * TileLayout<Rows::kWide>::bytes(plan.kv_rows)};
  }
  /// Q; dO and O stand slot_rows and twice as many rows further.
  template <int kColumns>
  __device__ Rows q_rows(uint32_t slot) const {
    return Rows{base + plan.q, base + plan.q_narrow}.from(static_cast<int>(slot) * 3 * slot_rows(kColumns));
  }
  __device__ uint32_t ds_tile(uint32_t slot) const { return base + plan.ds + slot * plan.ds_bytes; }
  /// Of the rows in a slot of Q.
  template <int kColumns>
  __device__ RowTerms* terms(uint32_t slot) const {
    return reinterpret_cast<RowTerms*>(dynamic_shared_memory() + plan.terms) + slot * slot_rows(kColumns);
  }
  /// The sums of dV and dK of the tail, of the row tiles whose number is i modulo kWarps.
  template <int kColumns>
  __device__ float* tail_sums(int i) const {
    return reinterpret_cast<float*>(dynamic_shared_memory() + plan.tail) + i * 2 * kColumns;
  }
};

/// Stores accumulators of kTiles tiles of 16 rows, rounded, by way of `rows` in shared memory, which are free for it;
/// they are again when the lane that has stored them has waited for it.
template <class T, int kColumns, int kTiles>
__device__ inline void store_tiles(const float (&c)[kTiles][kColumns / 8][4], float factor, const Rows& rows,
                                   const RowMaps& maps, int first_row, const Unit& u, int lane) {
  const auto lanes = a_lanes<kColumns>(lane);
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
#pragma unroll
    for (int t = 0; t < kColumns / 8; t += 2) {
      uint32_t words[4];
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const float(&of)[4] = c[i][t + w / 2];
        words[w] = Element<T>::pack(of[w % 2 * 2] * factor, of[w % 2 * 2 + 1] * factor);
      }
      lanes.store(words, rows, i * kTile, 8 * t);
    }
  }
  wgmma_fence_shared();
  __syncwarp();
  if (lane != 0) return;
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    const Rows tile = rows.from(i * kTile);
    const int row = first_row + i * kTile, batch = static_cast<int>(u.batch);
    store_box(maps.wide, tile.wide, 0, row, u.head, batch);
    if (kColumns > Rows::kWide) store_box(maps.narrow, tile.narrow, Rows::kWide, row, u.head, batch);
  }
}

}  // namespace strobe::cuda::sm90
