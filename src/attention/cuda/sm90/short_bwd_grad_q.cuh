// dQ = dS K of tiles of rows, complete: dS covers all keys.
#pragma once

#include "src/attention/cuda/sm90/short_bwd_block.cuh"

namespace strobe::cuda::sm90 {

/// dQ of the tiles of rows from `tile` on, whose dS is in the slots from `slot` on: waits for it, stores dQ by way of
/// it and frees it. `head`: the slot of the head's K.
template <class T, int kColumns, int kRowTiles>
__device__ inline void grad_queries_of(const Block& b, uint32_t unit, uint32_t head, int tile, const Slot& slot) {
  static_assert(kRowTiles <= 2);
  constexpr int kSteps = kColumns / 16;
  const Barriers barriers = b.barriers();
  const Slot slots[2] = {slot, slot.after(1, b.plan.ds_slots)};
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) mbarrier_wait(barriers.ds_full(slots[r].index), slots[r].round % 2);

  const int lane = fresh_thread_index() % 32;
  const FragmentReader<16, Fragment::kATrans> ds_readers[2]{{b.ds_tile(slots[0].index), lane},
                                                            {b.ds_tile(slots[1].index), lane}};
  const auto k_lanes = b_trans_lanes<kColumns>(lane);
  float dq[kRowTiles][1][2 * kSteps][4] = {};
  Rows k_rows = b.k_rows(head);
#pragma unroll(kColumns > Rows::kWide ? 1 : 2)
  for (int key = 0; key < b.plan.kv_rows; key += kTile, k_rows = k_rows.from(kTile)) {
    uint32_t a[kRowTiles][4];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) ds_readers[r].load(a[r], key, 0);
#pragma unroll
    for (int d = 0; d < kSteps; ++d) {
      uint32_t k[4];
      k_lanes.load(k, k_rows, 0, 16 * d);
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        Element<T>::mma_m16n8k16(dq[r][0][2 * d], a[r], k[0], k[1]);
        Element<T>::mma_m16n8k16(dq[r][0][2 * d + 1], a[r], k[2], k[3]);
      }
    }
  }
  __syncwarp();
  const Unit u(b.c, unit);
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
    const uint32_t to = b.ds_tile(slots[r].index);
    store_tiles<T, kColumns, 1>(dq[r], b.c.softmax_scale, {to, to + TileLayout<Rows::kWide>::bytes(kTile)},
                                b.maps.grad_q, (tile + r) * kTile, u, lane);
  }
  if (lane == 0) wait_for_stored_boxes();
  __syncwarp();
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) mbarrier_arrive_if(lane == 0, barriers.ds_empty(slots[r].index));
}
/// Of a pair of tiles, or of a head's last.
template <class T, int kColumns>
__device__ inline void grad_queries_of_pair(const Block& b, uint32_t unit, uint32_t head, int tile, const Slot& ds) {
  if (tile + 1 < b.plan.row_tiles) {
    grad_queries_of<T, kColumns, 2>(b, unit, head, tile, ds);
  } else {
    grad_queries_of<T, kColumns, 1>(b, unit, head, tile, ds);
  }
}

/// A warp without keys: dQ of all pairs of tiles that are, or are not, the helper's.
template <class T, int kColumns>
__device__ void make_grad_queries(const Block& b, bool helper) {
  const Barriers barriers = b.barriers();
  Slot head, ds;
#pragma unroll 1
  for (uint32_t unit = blockIdx.x; unit < b.plan.units; unit += gridDim.x) {
    mbarrier_wait(barriers.kv_full(head.index), head.round % 2);
#pragma unroll 1
    for (int tile = 0; tile < b.plan.row_tiles; tile += 2) {
      if (b.plan.is_helped(tile) == helper) grad_queries_of_pair<T, kColumns>(b, unit, head.index, tile, ds);
      ds = ds.after(min(2, b.plan.row_tiles - tile), b.plan.ds_slots);
    }
    __syncwarp();
    mbarrier_arrive_if(b.lane == 0, barriers.kv_empty(head.index));
    head.advance(2);
  }
}

}  // namespace strobe::cuda::sm90
