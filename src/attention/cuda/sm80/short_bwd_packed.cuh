// Backward of sequences of at most 64 rows and keys, in one launch: 1 to 4 warps have a head. A warp first has 16 whole
// rows of S and dP in registers, so delta is the sum of P dP over the row (O is not read) and dQ is complete; then,
// with P and dS of all rows in shared memory, 16 keys, whose dK and dV are complete. Nothing is summed across warps.
#pragma once

#include "src/attention/cuda/sm80/short_packed.cuh"

namespace strobe::cuda::sm80 {

/// Rows that no kernel computes: the gradients of one head's hidden queries, and of its hidden keys where asked for.
template <class T>
__device__ inline void zero_hidden_queries(const BwdCall& c, const Sequence& s, int head, const Team& team) {
  zero_rows(s.q_rows<T>(c, c.grad_q, head), c.grad_q.row_stride, s.end_q, s.num_q, c.head_dim, team);
}
template <class T>
__device__ inline void zero_hidden_keys(const BwdCall& c, const Sequence& s, int head, const Team& team) {
  zero_rows(s.k_rows<T>(c, c.grad_k, head), c.grad_k.row_stride, s.end_k, s.num_k, c.head_dim, team);
  zero_rows(s.k_rows<T>(c, c.grad_v, head), c.grad_v.row_stride, s.end_k, s.num_k, c.head_dim, team);
}

/// The tile of one 16-key block of P or dS: all rows, 16 keys each.
using KeyBlockLayout = TileLayout<16>;

/// Accumulators, rounded, to such tiles, the first at `tile`.
template <class T>
__device__ inline void store_key_blocks(uint32_t tile, const float (&p)[kPackedTiles][4], int rows, int keys,
                                        int first_row, int lane) {
#pragma unroll
  for (int t = 0; t < kPackedTiles; ++t) {
    if (t / 2 * 16 >= keys) break;
    const uint32_t block = tile + static_cast<uint32_t>(t / 2 * KeyBlockLayout::bytes(rows));
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = first_row + accumulator_row(lane) + 8 * r;
      const uint32_t address = block + KeyBlockLayout::offset(row, t % 2) + accumulator_column(lane) * 2;
      store_shared_32(address, Element<T>::pack(p[t][2 * r], p[t][2 * r + 1]));
    }
  }
}

/// 16 keys of one head: out[key][d] = sum over rows of A[row][key] B[row][d], A in the tile of the key block.
template <class T, int kColumns, bool kMasked>
__device__ inline void sum_over_rows(float (&out)[kColumns / 8][4], uint32_t a_tile, uint32_t b_tile,
                                     const Visibility& see, bool limited, int first_key, int lane) {
  const FragmentReader<16, Fragment::kATrans> a_reader(a_tile, lane);
  const FragmentReader<kColumns, Fragment::kBTrans> b_reader(b_tile, lane);
#pragma unroll
  for (int i = 0; i < kPackedTiles / 2; ++i) {
    if (16 * i >= see.end_q) break;
    const bool partial =
        kMasked && limited && !all_summed_see(see, 16 * i, 16 * i + 16, first_key, first_key + kShortTile);
    const auto sees = [&](int m, int k) {
      const Range keys = keys_of_summed_row<kMasked>(see, 16 * i + k);
      return first_key + m >= keys.begin && first_key + m < keys.end;
    };
    uint32_t a[4];
    a_reader.load(a, 16 * i, 0);
#pragma unroll
    for (int d = 0; d < kColumns / 16; ++d) {
      uint32_t b[4];
      b_reader.load(b, 16 * i, 16 * d);
      multiply_add<T, kMasked>(out[2 * d], out[2 * d + 1], a, b, partial, sees, lane);
    }
  }
}

/// Blocks a multiprocessor, as registers allow.
constexpr int bwd_packed_blocks(int columns, bool masked) { return columns <= 64 && !masked ? 4 : 3; }

template <class T, int kColumns, bool kMasked>
__global__ void __launch_bounds__(kPackedWarps * 32, bwd_packed_blocks(kColumns, kMasked))
    short_bwd_packed(const __grid_constant__ BwdCall c, uint32_t units, int warps_a_head, uint32_t heads_a_block) {
  unsigned char* const shared = dynamic_shared_memory();
  const PackedPlace place = packed_place(warps_a_head, heads_a_block);
  if (place.unit >= units) return;
  const Work w = work(c, place.unit, c.num_heads_q);  // Hq = Hk
  const Sequence& s = w.sequence;
  const int lane = threadIdx.x % 32;
  if (s.end_q < s.num_q) zero_hidden_queries<T>(c, s, w.head, place.team);
  if (s.end_k < s.num_k) zero_hidden_keys<T>(c, s, w.head, place.team);

  const int rows = round_up(s.end_q, kShortTile), keys = round_up(s.end_k, kShortTile);
  using Layout = TileLayout<kColumns>;
  const uint32_t q_tile =
      shared_address(shared) + static_cast<uint32_t>(place.slot * packed_bwd_bytes(c.seqlen_q, c.seqlen_k, kColumns));
  const int most_rows = round_up(c.seqlen_q, kShortTile), most_keys = round_up(c.seqlen_k, kShortTile);
  const uint32_t k_tile = q_tile + Layout::bytes(most_rows), v_tile = k_tile + Layout::bytes(most_keys);
  const uint32_t do_tile = v_tile + Layout::bytes(most_keys);
  const uint32_t p_tile = do_tile + Layout::bytes(most_rows);
  const uint32_t ds_tile = p_tile + static_cast<uint32_t>(most_rows * most_keys * 2);
  const auto copy = [&](uint32_t tile, const void* data, int64_t stride, int end, int last) {
    copy_rows_async<kColumns>(tile, {data, stride, 0, end, c.head_dim}, 0, last, place.team);
  };
  copy(q_tile, s.q_rows<T>(c, c.q, w.head), c.q.row_stride, s.end_q, rows);
  copy(k_tile, s.k_rows<T>(c, c.k, w.head), c.k.row_stride, s.end_k, keys);
  cp_async_commit();
  copy(v_tile, s.k_rows<T>(c, c.v, w.head), c.v.row_stride, s.end_k, keys);
  copy(do_tile, s.q_rows<T>(c, c.grad_out, w.head), c.grad_out.row_stride, s.end_q, rows);
  cp_async_commit();

  const int first = place.tile * kShortTile;
  const PackedRows<T, kColumns, kMasked> tile(c, s, first, lane);
  const Visibility& see = tile.visibility();
  const bool limited = kMasked && (c.window_left < kUnlimited || c.window_right < kUnlimited);
  const bool dropped = kMasked && c.rng_state != nullptr;
  const float keep_scale = dropped ? dropout_scale(c.dropout_threshold) : 1.0f;
  float base[2] = {kInfinity, kInfinity};
  const int64_t lse_offset = s.lse_offset(c, w.head);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (tile.row(r) >= s.end_q) continue;
    base[r] = exponent_base(c.softmax_lse[lse_offset + tile.row(r)]);
  }

  cp_async_wait<1>();
  place.team.sync();
  const bool has_rows = first < s.end_q;
  float p[kPackedTiles][4] = {};
  if (has_rows) {
    tile.multiply(p, q_tile, k_tile);
    const float scale = c.softmax_scale * kLog2E;
#pragma unroll
    for (int t = 0; t < kPackedTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) p[t][e] = exp2_approx(p[t][e] * scale - base[e / 2]);
    }
    tile.mask(p, 0.0f);
  }
  cp_async_wait<0>();
  place.team.sync();
  if (has_rows) {
    float ds[kPackedTiles][4] = {};
    tile.multiply(ds, do_tile, v_tile);
    tile.mask(ds, 0.0f);
    if (dropped) {
#pragma unroll
      for (int t = 0; t < kPackedTiles; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) ds[t][e] *= keep_scale;
      }
      tile.drop(ds, Dropout(c, s.index, w.head));
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float delta = 0.0f;
#pragma unroll
      for (int t = 0; t < kPackedTiles; ++t) {
#pragma unroll
        for (int e = 2 * r; e < 2 * r + 2; ++e) delta += p[t][e] * ds[t][e];
      }
      delta = quad_sum(delta);
      if (c.grad_softmax_lse != nullptr && tile.row(r) < see.end_q) {
        delta -= c.grad_softmax_lse[lse_offset + tile.row(r)];
      }
#pragma unroll
      for (int t = 0; t < kPackedTiles; ++t) {
#pragma unroll
        for (int e = 2 * r; e < 2 * r + 2; ++e) ds[t][e] = p[t][e] * (ds[t][e] - delta);
      }
    }
    tile.mask(ds, 0.0f);  // delta may be a NaN
    store_key_blocks<T>(ds_tile, ds, rows, keys, first, lane);
    if (dropped) tile.drop(p, Dropout(c, s.index, w.head));
    store_key_blocks<T>(p_tile, p, rows, keys, first, lane);

    float dq[kColumns / 8][4] = {};
    tile.multiply_keys(dq, ds, k_tile);
    const Work again = work(c, place.unit, c.num_heads_q);  // rather than in registers all the while
    T* const data = again.sequence.q_rows<T>(c, c.grad_q, again.head);
    T* row[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) row[r] = tile.row(r) < see.end_q ? data + tile.row(r) * c.grad_q.row_stride : nullptr;
    const float factor[2] = {c.softmax_scale, c.softmax_scale};
    store_rows<T>(dq, factor, row, c.head_dim, lane);
  }
  place.team.sync();

  if (first >= see.end_k) return;
  const Work again = work(c, place.unit, c.num_heads_q);
  const uint32_t block = static_cast<uint32_t>(place.tile * KeyBlockLayout::bytes(rows));
  const auto write = [&](const Strided& gradient, const float(&out)[kColumns / 8][4], float factor) {
    T* const data = again.sequence.k_rows<T>(c, gradient, again.head);
    T* row[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) row[r] = tile.row(r) < see.end_k ? data + tile.row(r) * gradient.row_stride : nullptr;
    const float factors[2] = {factor, factor};
    store_rows<T>(out, factors, row, c.head_dim, lane);
  };
  {
    float dv[kColumns / 8][4] = {};
    sum_over_rows<T, kColumns, kMasked>(dv, p_tile + block, do_tile, see, limited, first, lane);
    write(c.grad_v, dv, keep_scale);
  }
  float dk[kColumns / 8][4] = {};
  sum_over_rows<T, kColumns, kMasked>(dk, ds_tile + block, q_tile, see, limited, first, lane);
  write(c.grad_k, dk, c.softmax_scale);
}

}  // namespace strobe::cuda::sm80
