// Backward of one head in one block and one launch. Each warp owns 16 or 32
// keys (short_bwd_keys.cuh), whose dK and dV never leave its registers. dS goes to shared memory once, and after a
// barrier the warps share dQ = dS K in pieces of 16 rows by 16 columns, each complete: dS covers all keys.
#pragma once

#include "src/attention/cuda/common/launch.h"
#include "src/attention/cuda/sm80/short_bwd_keys.cuh"

namespace strobe::cuda::sm80 {

/// What the blocks's tiles are, in shared memory.
template <int kColumns>
struct ResidentTiles {
  using Layout = TileLayout<kColumns>;
  int owned_keys;  // a multiple of 16; those of the tail come after
  uint32_t k, v, q, grad_out;
  uint32_t ds, ds_bytes;    // buffers of dS, [owned key][row] tiles of 16 rows, so large each
  uint32_t tail_ds, terms;  // dS of the tail, all rows; RowTerms

  /// Depends on the call alone: the compiler keeps it in uniform registers.
  __device__ ResidentTiles(uint32_t shared, const Call& c) {
    const int rows = round_up(c.seqlen_q, kShortTile), keys = round_up(c.seqlen_k, kShortTile);
    owned_keys = resident_bwd_has_tail(kColumns) ? min(keys, resident_bwd_owned_keys(kColumns)) : keys;
    k = shared;
    v = k + Layout::bytes(keys);
    q = v + Layout::bytes(keys);
    grad_out = q + Layout::bytes(rows);
    tail_ds = grad_out + Layout::bytes(rows);
    terms = tail_ds + static_cast<uint32_t>(rows * (keys - owned_keys) * 2);
    ds = terms + static_cast<uint32_t>(rows * sizeof(RowTerms));
    ds_bytes = static_cast<uint32_t>(KeyBlockLayout::bytes(owned_keys));
  }
  __device__ bool has_tail(const Visibility& see) const {
    return resident_bwd_has_tail(kColumns) && owned_keys < see.end_k;
  }
  __device__ uint32_t tail_ds_of(int row) const { return tail_ds + row * (kShortTile * 2); }
};

/// dQ of rows [first, first + 16), half of the columns: dS K over the keys that the rows see.
template <class T, int kColumns, bool kMasked>
class GradQPiece {
  static constexpr int kBlocks = (kColumns / 16 + 1) / 2;  // of 16 columns; the second half may have one less
  static constexpr int kUnroll = kBlocks > 2 ? 1 : 4;      // as registers allow

 public:
  /// `finite`: whether K is, or all rows see all keys.
  __device__ GradQPiece(const BwdCall& c, const Visibility& see, int first, int half, bool finite, int lane)
      : c_(c), see_(see), first_(first), begin_(half * kBlocks), finite_(finite), lane_(lane) {}

  __device__ void add(const ResidentTiles<kColumns>& tiles, uint32_t ds_tile) {
    const Range keys = keys_of_tile<kMasked>(see_, first_);
    if (keys.empty()) return;
    const FragmentReader<16, Fragment::kATrans> ds_reader(ds_tile, lane_);
    const FragmentReader<kColumns, Fragment::kBTrans> k_reader(tiles.k, lane_);
    const int begin = keys.begin / kShortTile * kShortTile, owned_end = min(keys.end, tiles.owned_keys);
    if (kMasked && !finite_) {
      mark_seen_keys(tiles.k);
#pragma unroll 1
      for (int key = begin; key < owned_end; key += kShortTile) add_keys<kMasked>(ds_reader, key, k_reader, key);
    } else {
#pragma unroll kUnroll
      for (int key = begin; key < owned_end; key += kShortTile) add_keys<false>(ds_reader, key, k_reader, key);
    }
    if (tiles.has_tail(see_) && keys.end > tiles.owned_keys) {
      const FragmentReader<16, Fragment::kATrans> tail_reader(tiles.tail_ds_of(first_), lane_);
      if (kMasked && !finite_) {
        add_keys<kMasked>(tail_reader, 0, k_reader, tiles.owned_keys);
      } else {
        add_keys<false>(tail_reader, 0, k_reader, tiles.owned_keys);
      }
    }
  }

  /// `data`: row 0 of the head.
  __device__ void store(T* data) const {
    T* row[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int i = first_ + accumulator_row(lane_) + 8 * r;
      row[r] = i < see_.end_q ? data + i * c_.grad_q.row_stride + 16 * begin_ : nullptr;
    }
    const float factor[2] = {c_.softmax_scale, c_.softmax_scale};
    store_rows<T>(dq_, factor, row, c_.head_dim - 16 * begin_, lane_);
  }

 private:
  __device__ void mark_seen_keys(uint32_t k_tile) {
    unsigned char* const shared = dynamic_shared_memory();
    const unsigned char* const tile = shared + (k_tile - shared_address(shared));
    const int row = first_ + accumulator_row(lane_);
    const Range seen[2] = {keys_of_summed_row<kMasked>(see_, row), keys_of_summed_row<kMasked>(see_, row + 8)};
    mark_seen<T, kColumns>(dq_, tile, seen, 16 * begin_, lane_);
  }

  /// kFinitePart: without what is not finite in K.
  template <bool kFinitePart>
  __device__ void add_keys(const FragmentReader<16, Fragment::kATrans>& ds_reader, int ds_key,
                           const FragmentReader<kColumns, Fragment::kBTrans>& k_reader, int key) {
    uint32_t a[4];
    ds_reader.load(a, ds_key, 0);
#pragma unroll
    for (int d = 0; d < kBlocks; ++d) {
      uint32_t b[4];
      if (begin_ + d >= kColumns / 16) break;
      k_reader.load(b, key, 16 * (begin_ + d));
      if constexpr (kFinitePart) keep_finite<T>(b);
      multiply_add<T>(dq_[2 * d], dq_[2 * d + 1], a, b);
    }
  }

  const BwdCall& c_;
  const Visibility& see_;
  int first_, begin_;
  bool finite_;
  int lane_;
  float dq_[2 * kBlocks][4] = {};
};

/// dK and dV of the tail's keys: each warp has every so many row tiles; then the warps' sums are added in the order of
/// the warps, half of the columns at a time.
template <class T, int kColumns, bool kMasked>
class TailKeys {
 public:
  using Keys = ResidentKeys<T, kColumns, 1, Keep::kNone, kMasked>;

  __device__ static void run(const BwdCall& c, const Sequence& s, const Visibility& see, int head,
                             const ResidentTiles<kColumns>& tiles, const RowTerms* terms, const Dropout& dropout,
                             bool dropped, float keep_scale, bool finite, float* sums, const Team& team) {
    const int lane = team.thread % 32, warp = team.thread / 32, warps = team.threads / 32;
    Keys keys(c, see, tiles.owned_keys, 0, 0, finite, lane);
    keys.load(tiles.k, tiles.v);
    for (int first = warp * kShortTile; first < see.end_q; first += warps * kShortTile) {
      if (!keys.tile_is_in(keys_of_tile<kMasked>(see, first), 0)) continue;
      const uint32_t ds = tiles.tail_ds_of(first);
      if (kMasked && dropped) {
        keys.template add_rows<kMasked>(first, tiles.q, tiles.grad_out, ds, terms, dropout, keep_scale);
      } else {
        keys.template add_rows<false>(first, tiles.q, tiles.grad_out, ds, terms, dropout, keep_scale);
      }
    }
    write(c, s, c.grad_v, head, keys.grad_v(), keep_scale, tiles.owned_keys, sums, team);
    write(c, s, c.grad_k, head, keys.grad_k(), c.softmax_scale, tiles.owned_keys, sums, team);
  }

 private:
  static constexpr int kHalf = kColumns / 16;  // n8 tiles

  __device__ static void write(const BwdCall& c, const Sequence& s, const Strided& gradient, int head,
                               const float (&out)[kColumns / 8][4], float factor, int first_key, float* sums,
                               const Team& team) {
    const int lane = team.thread % 32, warp = team.thread / 32, warps = team.threads / 32;
    T* const data = s.k_rows<T>(c, gradient, head);
    for (int half = 0; half < 2; ++half) {
      team.sync();
#pragma unroll
      for (int t = 0; t < kHalf; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          sums[((warp * kHalf + t) * 4 + e) * 32 + lane] = half == 0 ? out[t][e] : out[kHalf + t][e];
        }
      }
      team.sync();
      for (int t = warp; t < kHalf; t += warps) {
        float sum[4] = {};
        for (int w = 0; w < warps; ++w) {
#pragma unroll
          for (int e = 0; e < 4; ++e) sum[e] += sums[((w * kHalf + t) * 4 + e) * 32 + lane];
        }
        const int column = (half * kHalf + t) * 8;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int key = first_key + accumulator_row(lane) + 8 * r;
          if (key >= s.end_k || column >= c.head_dim) continue;
          *reinterpret_cast<uint32_t*>(data + key * gradient.row_stride + column + accumulator_column(lane)) =
              Element<T>::pack(sum[2 * r] * factor, sum[2 * r + 1] * factor);
        }
      }
    }
  }
};

/// Asks for what block `unit` will read.
__device__ inline void prefetch_backward(const BwdCall& c, uint32_t unit, const Team& team) {
  const Work w = work(c, unit, c.num_heads_q);
  const Sequence& s = w.sequence;
  const auto keys = [&](const Strided& t) {
    prefetch_rows({s.k_rows<__half>(c, t, w.head), t.row_stride, 0, s.end_k, c.head_dim}, team);
  };
  const auto queries = [&](const Strided& t) {
    prefetch_rows({s.q_rows<__half>(c, t, w.head), t.row_stride, 0, s.end_q, c.head_dim}, team);
  };
  keys(c.k);
  keys(c.v);
  queries(c.q);
  queries(c.grad_out);
  queries(c.out);
}

/// `ahead`: how many blocks run at the same time.
template <class T, int kColumns, bool kMasked>
__global__ void __launch_bounds__(kResidentBwdWarps * 32, 1)
    short_bwd_resident(const __grid_constant__ BwdCall c, ResidentBwdPlan plan, uint32_t ahead) {
  unsigned char* const shared = dynamic_shared_memory();
  const Work w = work(c, blockIdx.x, c.num_heads_q);
  const Sequence& s = w.sequence;
  const Visibility see(c, s);
  const Team team{static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), 0};
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const uint32_t shared_begin = shared_address(shared);
  const ResidentTiles<kColumns> tiles(shared_begin + kHeaderBytes, c);
  const int rows = round_up(s.end_q, kShortTile), keys = round_up(s.end_k, kShortTile);
  auto* const terms = reinterpret_cast<RowTerms*>(shared + (tiles.terms - shared_begin));

  struct Head {                   // rather than in each lane's registers all the while
    T *grad_q, *grad_k, *grad_v;  // row 0
    bool finite;                  // Q, dO and K, or nothing is asked of them
  };
  static_assert(sizeof(Head) <= kHeaderBytes);
  auto& head = *reinterpret_cast<Head*>(shared);
  if (threadIdx.x == 0) {
    head = {s.q_rows<T>(c, c.grad_q, w.head), s.k_rows<T>(c, c.grad_k, w.head), s.k_rows<T>(c, c.grad_v, w.head), true};
  }
  const auto copy = [&](uint32_t tile, const void* data, int64_t stride, int end, int last) {
    copy_rows_async<kColumns>(tile, {data, stride, 0, end, c.head_dim}, 0, last, team);
  };
  copy(tiles.k, s.k_rows<T>(c, c.k, w.head), c.k.row_stride, s.end_k, keys);
  copy(tiles.v, s.k_rows<T>(c, c.v, w.head), c.v.row_stride, s.end_k, keys);
  if (s.end_k < s.num_k) zero_hidden_keys<T>(c, s, w.head, team);

  const bool dropped = kMasked && c.rng_state != nullptr;
  const float keep_scale = dropped ? dropout_scale(c.dropout_threshold) : 1.0f;
  copy(tiles.q, s.q_rows<T>(c, c.q, w.head), c.q.row_stride, s.end_q, rows);
  copy(tiles.grad_out, s.q_rows<T>(c, c.grad_out, w.head), c.grad_out.row_stride, s.end_q, rows);
  cp_async_commit();
  if (s.end_q < s.num_q) zero_hidden_queries<T>(c, s, w.head, team);
  {
    RowTermMaker<T, kColumns, 5> maker(c, s, w.head);
    if (blockIdx.x + ahead < gridDim.x) prefetch_backward(c, blockIdx.x + ahead, team);
    cp_async_wait<0>();
    team.sync();
    bool finite = maker.write(terms, tiles.grad_out, rows);
    if (kMasked && limited(c)) {
      for (int first = warp * kShortTile; first < keys; first += warps * kShortTile) {
        const unsigned char* const tile = shared + kHeaderBytes + TileLayout<kColumns>::bytes(first);
        finite = all_finite<T, kShortTile, kColumns>(tile, lane) && finite;
      }
      if (!finite) head.finite = false;
    }
  }
  team.sync();
  const bool finite = !kMasked || head.finite;
  const Dropout dropout = dropped ? Dropout(c, s.index, w.head) : Dropout();
  if constexpr (resident_bwd_has_tail(kColumns)) {
    if (tiles.has_tail(see)) {
      auto* const sums = reinterpret_cast<float*>(shared + (tiles.ds - shared_begin));
      TailKeys<T, kColumns, kMasked>::run(c, s, see, w.head, tiles, terms, dropout, dropped, keep_scale, finite, sums,
                                          team);
      team.sync();  // the sums are where dS will be
    }
  }

  constexpr int kTiles = resident_bwd_tiles(kColumns), kWarpKeys = 16 * kTiles;
  constexpr bool kApart = kTiles == 2 && resident_bwd_tiles_apart(kColumns, kMasked);
  const int last = min(tiles.owned_keys, keys) - kShortTile;
  int first_key = warp * kWarpKeys, distance = kShortTile;
  if (kApart) {
    first_key = 2 * warp * kShortTile > last ? keys : warp * kShortTile;
    // The one in the middle has its second tile just behind the keys, where shared memory goes on.
    distance = 2 * warp * kShortTile < last ? last - 2 * warp * kShortTile : keys - first_key;
  }
  ResidentKeys<T, kColumns, kTiles, resident_bwd_keep(kColumns, kMasked), kMasked> mine(c, see, first_key, distance,
                                                                                        first_key, finite, lane);
  if (first_key < s.end_k && rows > 0) mine.load(tiles.k, tiles.v);

  uint32_t ds = tiles.ds;
  const int stage_rows = plan.row_tiles * kShortTile;
#pragma unroll 1
  for (int stage = 0; stage < rows; stage += stage_rows) {
    const int stage_end = min(stage + stage_rows, rows);
#pragma unroll 1
    for (int first = stage; first < stage_end; first += kShortTile) {
      const Range seen = keys_of_tile<kMasked>(see, first);
      const bool second = kTiles == 2 && mine.tile_is_in(seen, kTiles - 1);
      if (!second && !mine.tile_is_in(seen, 0)) continue;
      const uint32_t ds_tile = ds + (first - stage) / kShortTile * tiles.ds_bytes;
      if (kMasked && dropped) {
        mine.template add_rows<kMasked>(first, tiles.q, tiles.grad_out, ds_tile, terms, dropout, keep_scale);
      } else if (kApart && !second) {
        mine.template add_rows<false, 1>(first, tiles.q, tiles.grad_out, ds_tile, terms, dropout, keep_scale);
      } else {
        mine.template add_rows<false>(first, tiles.q, tiles.grad_out, ds_tile, terms, dropout, keep_scale);
      }
    }
    team.sync();
#pragma unroll 1
    for (int piece = warp; piece < (stage_end - stage) / kShortTile * 2; piece += warps) {
      GradQPiece<T, kColumns, kMasked> dq(c, see, stage + piece / 2 * kShortTile, piece % 2, finite, lane);
      dq.add(tiles, ds + piece / 2 * tiles.ds_bytes);
      dq.store(head.grad_q);
    }
    if (plan.buffers == 1) {
      team.sync();
    } else {
      ds = ds == tiles.ds ? tiles.ds + plan.row_tiles * tiles.ds_bytes : tiles.ds;
    }
  }
  if (first_key < s.end_k) mine.store(c, head.grad_k, head.grad_v, keep_scale);
}

}  // namespace strobe::cuda::sm80
