// The computing warps that have keys: S^T and dP^T of them against 16 rows at a time, whose accumulators are
// at once the A fragments of dV += P^T dO and dK += dS^T Q, so dK and dV stay in registers for the whole head.
#pragma once

#include "src/attention/cuda/sm80/short_tile.cuh"
#include "src/attention/cuda/sm90/short_bwd_grad_q.cuh"
#include "src/attention/cuda/sm90/short_bwd_tail.cuh"

namespace strobe::cuda::sm90 {

/// 32 keys of a warp, or 16.
template <class T, int kColumns, int kTiles>
class StreamKeys {
  static constexpr int kSlotRows = slot_rows(kColumns);
  static constexpr int kSteps = kColumns / 16;
  static constexpr bool kKeepK = kColumns <= Rows::kWide;  // in registers, else read again for all rows
  using Products = float[kTiles][2][4];                    // of S^T or dP^T: keys by 16 rows

 public:
  __device__ StreamKeys(const BwdCall& c, int first_key, int lane)
      : a_(a_lanes<kColumns>(lane)),
        b_(b_lanes<kColumns>(lane)),
        b_trans_(b_trans_lanes<kColumns>(lane)),
        first_key_(first_key),
        keys_left_(c.seqlen_k - first_key - lane / 4),
        log2_scale_(c.softmax_scale * kLog2E) {}

  /// K and V of the warp's keys.
  __device__ void begin(const Rows& k, const Rows& v) {
    k_rows_ = k, v_rows_ = v;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      if constexpr (kKeepK) {
#pragma unroll
        for (int step = 0; step < kSteps; ++step) a_.load(k_[i][step], k, 16 * i, 16 * step);
      }
#pragma unroll
      for (int d = 0; d < kColumns / 8; ++d) {
#pragma unroll
        for (int e = 0; e < 4; ++e) dk_[i][d][e] = dv_[i][d][e] = 0.0f;
      }
    }
  }

  /// 16 rows: Q at `q_rows`, dO slot_rows rows further, the lane's first of `terms`. dS goes to `ds_tile`, and
  /// `ds_full` is told.
  __device__ void add_rows(const Rows& q_rows, const RowTerms* terms, uint32_t ds_tile, uint32_t ds_full,
                           bool arrives) {
    Products p, ds;
    float base[2][2];
    begin_products(p, ds, base, terms);
    multiply(p, ds, q_rows);
    uint32_t p_fragments[kTiles][4], ds_fragments[kTiles][4];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          p[i][t][e] = exp2_approx(p[i][t][e] * log2_scale_ - base[t][e % 2]);
          ds[i][t][e] *= p[i][t][e];
        }
      }
      accumulators_to_a<T>(p_fragments[i], p[i][0], p[i][1]);
      accumulators_to_a<T>(ds_fragments[i], ds[i][0], ds[i][1]);
      store_ds(ds_fragments[i], i, ds_tile);
    }
    __syncwarp();
    mbarrier_arrive_if(arrives, ds_full);
    add_products(p_fragments, ds_fragments, q_rows);
  }

  /// `first_key`: of the head. By way of the rows of V of these keys, which nobody else reads.
  __device__ void store(const Block& b, const Unit& u, int first_key) const {
    const int lane = fresh_thread_index() % 32;
    store_tiles<T, kColumns, kTiles>(dv_, 1.0f, v_rows_, b.maps.grad_v, first_key, u, lane);
    if (lane == 0) wait_for_stored_boxes();
    __syncwarp();
    store_tiles<T, kColumns, kTiles>(dk_, b.c.softmax_scale, v_rows_, b.maps.grad_k, first_key, u, lane);
    if (lane == 0) wait_for_stored_boxes();
    __syncwarp();
  }

 private:
  /// S^T from zeros, dP^T from dLSE - delta.
  __device__ static void begin_products(Products& p, Products& dp, float (&base)[2][2], const RowTerms* terms) {
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      const auto both = *reinterpret_cast<const float4*>(terms + 8 * t);
      base[t][0] = both.x, base[t][1] = both.z;
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        dp[i][t][0] = dp[i][t][2] = both.y;
        dp[i][t][1] = dp[i][t][3] = both.w;
#pragma unroll
        for (int e = 0; e < 4; ++e) p[i][t][e] = 0.0f;
      }
    }
  }

  /// S^T and dP^T of the rows, both at once: twice as many products that do not wait for each other.
  __device__ void multiply(Products& p, Products& dp, const Rows& q_rows) const {
    const Rows v_rows{v_rows_.wide, held_address(v_rows_.narrow)};  // a sum with it would wait in a register
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint32_t q[4], g[4];
      b_.load(q, q_rows, 0, 16 * step);
      b_.load(g, q_rows, kSlotRows, 16 * step);
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        uint32_t k[4], v[4];
        if constexpr (kKeepK) {
#pragma unroll
          for (int w = 0; w < 4; ++w) k[w] = k_[i][step][w];
        } else {
          a_.load(k, k_rows_, 16 * i, 16 * step);
        }
        Element<T>::mma_m16n8k16(p[i][0], k, q[0], q[1]);
        Element<T>::mma_m16n8k16(p[i][1], k, q[2], q[3]);
        a_.load(v, v_rows, 16 * i, 16 * step);
        Element<T>::mma_m16n8k16(dp[i][0], v, g[0], g[1]);
        Element<T>::mma_m16n8k16(dp[i][1], v, g[2], g[3]);
      }
    }
  }

  /// Rows of hidden keys stay the zeros that they are from the start.
  __device__ void store_ds(const uint32_t (&fragment)[4], int tile, uint32_t ds_tile) const {
    const int lane = fresh_thread_index() % 32;  // rather than a register for it all the while
    const uint32_t rows = ds_tile + TileLayout<16>::bytes(first_key_) +
                          TileLayout<16>::offset(accumulator_row(lane), 0) + accumulator_column(lane) * 2;
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const int key = 16 * tile + w % 2 * 8;
      if (key < keys_left_) store_shared_32((rows ^ (w / 2 * kChunkBytes)) + TileLayout<16>::bytes(key), fragment[w]);
    }
  }

  /// dV[key][d] += P[key][row] dO[row][d], dK[key][d] += dS[key][row] Q[row][d].
  __device__ void add_products(const uint32_t (&p)[kTiles][4], const uint32_t (&ds)[kTiles][4], const Rows& q_rows) {
#pragma unroll
    for (int d = 0; d < kSteps; ++d) {
      uint32_t g[4], q[4];
      b_trans_.load(g, q_rows, kSlotRows, 16 * d);
      b_trans_.load(q, q_rows, 0, 16 * d);
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        Element<T>::mma_m16n8k16(dv_[i][2 * d], p[i], g[0], g[1]);
        Element<T>::mma_m16n8k16(dv_[i][2 * d + 1], p[i], g[2], g[3]);
        Element<T>::mma_m16n8k16(dk_[i][2 * d], ds[i], q[0], q[1]);
        Element<T>::mma_m16n8k16(dk_[i][2 * d + 1], ds[i], q[2], q[3]);
      }
    }
  }

  Lanes<kColumns, false> a_, b_;
  Lanes<kColumns, true> b_trans_;
  Rows k_rows_, v_rows_;
  int first_key_;
  int keys_left_;
  float log2_scale_;
  uint32_t k_[kTiles][kSteps][4];
  float dk_[kTiles][kColumns / 8][4], dv_[kTiles][kColumns / 8][4];
};

/// What a warp with keys has of dQ: nothing, the helper's pairs of tiles of rows, or, as all kWarps of them, a tile and
/// the tail's part of it in turn.
enum class GradQ { kNone, kHelps, kShares };

/// A warp with keys.
template <class T, int kColumns, int kTiles, GradQ kGradQ>
__device__ void own_keys(const Block& b, int first_key) {
  constexpr bool kShares = kGradQ == GradQ::kShares;
  constexpr int kSlotTiles = slot_tiles(kColumns);
  const Barriers barriers = b.barriers();
  StreamKeys<T, kColumns, kTiles> keys(b.c, first_key, b.lane);
  Slot head, q, ds;
  int turn = kWarps - first_key / (2 * kTile);  // + tile: 0 modulo kWarps where the tile is this warp's
#pragma unroll 1
  for (uint32_t unit = blockIdx.x; unit < b.plan.units; unit += gridDim.x) {
    const Rows k = b.k_rows(head.index);
    mbarrier_wait(barriers.kv_full(head.index), head.round % 2);
    keys.begin(k.from(first_key), k.from(b.plan.kv_rows + first_key));
    if (kShares && b.plan.has_tail()) mbarrier_wait(barriers.tail_empty(), ~(2 * head.round + head.index) & 1);
    // This warp's share of dQ of the tiles before `end`, when ds is `now` slots on from the head's first.
    const auto make_grad_q = [&](int end, int now) {
      if constexpr (kShares) {
        if (end > 0 && (turn + end - 1) % kWarps == 0) {
          grad_queries_of<T, kColumns, 1>(b, unit, head.index, end - 1, ds.before(now - end + 1, b.plan.ds_slots));
        }
      } else if constexpr (kGradQ == GradQ::kHelps) {
        const int pair = (end - 1) / 2 * 2;
        if (end > 0 && (end % 2 == 0 || end == b.plan.row_tiles) && b.plan.help == kHelpsWithKeys &&
            b.plan.is_helped(pair)) {
          grad_queries_of_pair<T, kColumns>(b, unit, head.index, pair, ds.before(now - pair, b.plan.ds_slots));
        }
      }
    };
#pragma unroll 1
    for (int tile = 0; tile < b.plan.row_tiles; ++tile) {
      if (tile % kSlotTiles == 0) {
        mbarrier_wait(barriers.q_full(q.index), q.round % 2);
        mbarrier_wait(barriers.terms_full(q.index), q.round % 2);
      }
      mbarrier_wait(barriers.ds_empty(ds.index), ~ds.round & 1);
      const Rows rows = b.q_rows<kColumns>(q.index).from(tile % kSlotTiles * kTile);
      const RowTerms* const terms = b.terms<kColumns>(q.index) + tile % kSlotTiles * kTile;
      if (kShares && b.plan.has_tail() && (turn + tile) % kWarps == 0) {
        const int owned = b.plan.key_tiles * kTile;
        add_tail<T, kColumns>(b, k.from(owned), k.from(b.plan.kv_rows + owned), rows, terms,
                              b.ds_tile(ds.index) + TileLayout<kTile>::bytes(owned),
                              b.tail_sums<kColumns>(tile % kWarps), tile < kWarps);
        __syncwarp();
        mbarrier_arrive_if(b.lane == 0, barriers.tail_full());
      }
      keys.add_rows(rows, terms + accumulator_column(fresh_thread_index() % 32), b.ds_tile(ds.index),
                    barriers.ds_full(ds.index), b.lane == 0);
      ds.advance(b.plan.ds_slots);
      if (tile % kSlotTiles == kSlotTiles - 1 || tile == b.plan.row_tiles - 1) {
        __syncwarp();
        mbarrier_arrive_if(b.lane == 0, barriers.q_empty(q.index));
        q.advance(b.plan.q_slots);
      }
      make_grad_q(tile, tile + 1);
    }
    make_grad_q(b.plan.row_tiles, b.plan.row_tiles);
    turn += b.plan.row_tiles;
    keys.store(b, Unit(b.c, unit), first_key);
    mbarrier_arrive_if(b.lane == 0, barriers.kv_empty(head.index));
    head.advance(2);
  }
}

}  // namespace strobe::cuda::sm90
