// The backward over key blocks (FlashAttention-2: Dao 2023, arXiv 2307.08691, Algorithm 2): a block takes one tile of
// keys of one key/value head and walks over the queries, of every query head of the group, that see them. Each warp
// computes the transposes S^T = K Q^T and dP^T = V dO^T of its keys, whose accumulators are, rounded, the left operands
// of dV += P^T dO and dK += dS^T Q. dQ = dS K, a sum over the warps' keys, goes through shared memory: a tile of
// queries later, so that one barrier a tile orders everything and its products are independent of those around it.
#pragma once

#include "src/attention/cuda/mma/bwd_keys.cuh"

namespace strobe::cuda {

template <class Arch, class T, int kHeadDim, BwdKvTile kTile, KvPass kPass, bool kDropout>
class BwdKv : public BwdKeys<Arch, T, kHeadDim, kTile, kPass, kDropout> {
  using Base = BwdKeys<Arch, T, kHeadDim, kTile, kPass, kDropout>;
  using Shape = BwdKvShape<kHeadDim, kTile, kPass>;
  using Base::call_, Base::shared_, Base::shared_address_, Base::grad_k_, Base::grad_v_, Base::places;
  using Base::k_tile, Base::v_tile, Base::lane, Base::warp, Base::thread, Base::group, Base::part, Base::first_key;
  using Base::keys_finite, Base::next, Base::write;
  using Base::kKeyTiles, Base::kWarpKeys, Base::kKeys, Base::kRows, Base::kStrip, Base::kMaskedStrip, Base::kKeyBytes,
      Base::kGroups, Base::kWithKeys, Base::kWithValues;
  using typename Base::KeyFragments, typename Base::Layout, typename Base::Places, typename Base::Queries,
      typename Base::QueryCopies, typename Base::Sees;
  template <int kRows>
  using Rounded = typename Base::template Rounded<kRows>;
  static constexpr int kParts = kTile.column_warps, kPartRows = kRows / kParts;
  using ScoreLayout = TileLayout<kRows>;  // of dS^T and P^T
  static constexpr int kGradScoreTiles = Shape::kGradScoreTiles, kScoresBegin = Shape::kScoresBegin;
  static constexpr bool kWithQueries = Shape::kWithQueries;
  // Two strips as one piece of code, whose instructions mix. With dropout it would spill.
  static constexpr bool kSideBySide = kParts == 1 && kPartRows == 2 * kStrip && !kDropout;

 public:
  using Base::kThreads;
  static constexpr bool kInOrder = kPass == KvPass::kKeysValuesQueriesInOrder;

  __device__ BwdKv(const BwdCall& call, const BwdScratch& scratch, unsigned char* shared)
      : Base(call, scratch, shared) {}

  __device__ void run(int64_t index) {
    this->run_block(index, [&] { compute(); });
  }
  /// One block a head: its tiles in their order.
  __device__ void run_head(int64_t head) {
    const Sequence s = this->sequence_of(head);
    for (int first = 0; first < s.num_k; first += kKeys) {
      if (first > 0) __syncthreads();  // the staging becomes tiles of K and V
      this->run_tile(s, static_cast<int>(head % call_.num_heads_k), first, [&] { compute(); });
    }
  }

 private:
  __device__ void compute() {
    __syncthreads();
    accumulate();
    __syncthreads();  // the tiles of K and V become staging
    if constexpr (kWithKeys) write(call_.grad_k, grad_k_, call_.softmax_scale, 0);
    if constexpr (kWithValues) write(call_.grad_v, grad_v_, places().dropout_scale, kKeyBytes);
  }

  __device__ uint32_t q_tile(int stage) const { return shared_address_ + 2 * kKeyBytes + stage * Shape::kStageBytes; }
  __device__ uint32_t grad_out_tile(int stage) const { return q_tile(stage) + Shape::kRowBytes; }
  __device__ uint32_t stats_tile(int stage) const { return q_tile(stage) + 2 * Shape::kRowBytes; }
  /// Of dS of the tile of queries whose stage this is.
  __device__ int grad_scores_begin(int stage) const {
    return Shape::kGradScoresBegin + (kGradScoreTiles > 1 ? stage * Shape::kScoreBytes : 0);
  }

  __device__ void load_queries(QueryCopies& copies, const Queries& tile, int stage) const {
    Base::load_queries(copies, tile, q_tile(stage), grad_out_tile(stage), stats_tile(stage));
  }

  __device__ void accumulate() {
    QueryCopies copies;
    load_queries(copies, places().tiles[0], 0);
    Arch::commit();
    this->start();
    if (this->keys_matter()) check_keys();
    bool odd = false;  // a predicate, while an int would take a register
    while (true) {
      copies.finish(thread());
      Arch::wait();
      __syncthreads();  // the stage and dS of the one before are there, and nobody reads what comes in their places
      this->forget();
      const int stage = odd;
      const Queries tile = places().tiles[stage];
      if (const Queries after = next(tile); after.head < places().end_head) {
        if (thread() == 0) places().tiles[stage ^ 1] = after;
        load_queries(copies, after, stage ^ 1);
      }
      Arch::commit();
      if constexpr (kWithQueries) {
        if (has_previous(tile)) {
          add_grad_queries(previous(tile), stage ^ 1);
          if constexpr (kGradScoreTiles == 1) __syncthreads();
        }
      }
      add_tile(odd);
      if (next(places().tiles[odd]).head >= places().end_head) break;
      odd = !odd;
    }
    Arch::wait();
    if constexpr (kWithQueries) {
      __syncthreads();
      add_grad_queries(places().tiles[odd], odd);
    }
  }

  __device__ void check_keys() {
    Arch::wait();
    __syncthreads();
    const bool finite = all_finite<T, kWarpKeys, kHeadDim>(shared_ + Layout::bytes(first_key()), lane());
    if (part() == 0 && lane() == 0) this->set_keys_finite(group(), finite);
  }

  __device__ bool has_previous(const Queries& tile) const {
    return tile.row > places().rows.begin || tile.head > places().first_head;
  }
  __device__ Queries previous(const Queries& tile) const {
    const Range rows = places().rows;
    if (tile.row > rows.begin) return {tile.head, tile.row - kRows};
    return {tile.head - 1, rows.begin + (rows.end - rows.begin - 1) / kRows * kRows};
  }

  __device__ Sees sees(int row, int count) const { return Base::sees(group(), row, count); }

  /// What a tile of queries adds to the warp's dK and dV; its dS goes to shared memory.
  __device__ void add_tile(int stage) {
    this->forget();
    const int row = places().tiles[stage].row, own = part() * kPartRows;
    if constexpr (kSideBySide) {
      if (sees(row + own, kPartRows) == Sees::kAll) {
        add_strip<false, kStrip>(stage, own);
        add_strip<false, kStrip>(stage, own + kStrip);
        return;
      }
    }
#pragma unroll 1
    for (int strip = own; strip < own + kPartRows; strip += kStrip) {
      if (sees(row + strip, kStrip) == Sees::kAll) {
        add_strip<false, kStrip>(stage, strip);
        continue;
      }
#pragma unroll 1
      for (int piece = strip; piece < strip + kStrip; piece += kMaskedStrip) {
        if (sees(row + piece, kMaskedStrip) != Sees::kNone) {
          add_strip<true, kMaskedStrip>(stage, piece);
        } else if constexpr (kWithQueries) {
          const Rounded<kMaskedStrip> zeros = {};
          store_scores(zeros, grad_scores_begin(stage), piece);
        }
      }
    }
    if constexpr (kParts > 1) {
      named_barrier(1 + group(), kParts * 32);
#pragma unroll 1
      for (int other = kPartRows; other < kRows; other += kStrip) {
        const int strip = (own + other) % kRows;
        if (sees(row + strip, kStrip) == Sees::kAll) {
          add_others_strip<false, kStrip>(stage, strip);
          continue;
        }
#pragma unroll 1
        for (int piece = strip; piece < strip + kStrip; piece += kMaskedStrip) {
          if (sees(row + piece, kMaskedStrip) != Sees::kNone) add_others_strip<true, kMaskedStrip>(stage, piece);
        }
      }
    }
  }

  template <bool kMasked, int kStrip>
  __device__ void add_strip(int stage, int strip) {
    const uint32_t q = q_tile(stage) + Layout::bytes(strip), grad_out = grad_out_tile(stage) + Layout::bytes(strip);
    const auto* stats =
        reinterpret_cast<const float4*>(shared_ + (stats_tile(stage) - shared_address_)) + strip / 2 + lane() % 4;
    const Sequence& s = places().sequence;
    const int row = places().tiles[stage].row + strip, key = places().first + first_key();
    Rounded<kStrip> p, ds;
    this->template score<kMasked, kStrip>(p, ds, s, q, grad_out, stats, places().tiles[stage].head, row, key,
                                          places().dropout_scale);
    if constexpr (kWithValues) {
      if constexpr (kParts > 1) store_scores(p, kScoresBegin, strip);
      this->template add_product<kMasked, kStrip>(grad_v_, Base::fragments_of(p), s, grad_out, row, key);
    }
    if constexpr (kWithKeys) {
      if (!kMasked && key + kWarpKeys > s.end_k) hide_spare_keys(ds, s.end_k - key);
      if constexpr (kGradScoreTiles > 0) store_scores(ds, grad_scores_begin(stage), strip);
      this->template add_product<kMasked, kStrip>(grad_k_, Base::fragments_of(ds), s, q, row, key);
    }
  }

  /// The same for a strip whose scores another warp with the same keys has computed.
  template <bool kMasked, int kStrip>
  __device__ void add_others_strip(int stage, int strip) {
    const Sequence& s = places().sequence;
    const auto fragments_at = [&](int begin) {
      return [scores = FragmentReader<kRows, Fragment::kA, true>(shared_address_ + begin, lane(), first_key()), strip](
                 KeyFragments& a, int i) {
#pragma unroll
        for (int m = 0; m < kKeyTiles; ++m) scores.load(a[m], m * 16, strip + i);
      };
    };
    const int row = places().tiles[stage].row + strip, key = places().first + first_key();
    if constexpr (kWithValues) {
      this->template add_product<kMasked, kStrip>(grad_v_, fragments_at(kScoresBegin), s,
                                                  grad_out_tile(stage) + Layout::bytes(strip), row, key);
    }
    if constexpr (kWithKeys) {
      this->template add_product<kMasked, kStrip>(grad_k_, fragments_at(grad_scores_begin(stage)), s,
                                                  q_tile(stage) + Layout::bytes(strip), row, key);
    }
  }

  /// Zeros for dS of keys that are none, from `count` on: their probabilities are exp(-LSE), which may be infinite.
  template <int kTiles>
  __device__ void hide_spare_keys(uint32_t (&ds)[kKeyTiles][kTiles][2], int count) const {
#pragma unroll
    for (int i = 0; i < kKeyTiles * 2; ++i) {
      if (i * 8 + accumulator_row(lane()) < count) continue;
#pragma unroll
      for (int n = 0; n < kTiles; ++n) ds[i / 2][n][i % 2] = 0;
    }
  }

  template <int kTiles>
  __device__ void store_scores(const uint32_t (&x)[kKeyTiles][kTiles][2], int begin, int strip) const {
    const int key = first_key() + accumulator_row(lane());
    const uint32_t to = shared_address_ + begin + ScoreLayout::offset(key, strip / 8) + lane() % 4 * 4;
#pragma unroll
    for (int m = 0; m < kKeyTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          // strip / 8 is a multiple of the chunks of a strip, a power of two: the permutation is an exclusive or again.
          store_shared_32((to ^ n * kChunkBytes) + ScoreLayout::bytes(m * 16 + half * 8), x[m][n][half]);
        }
      }
    }
  }

  /// How the warps share dS K: kRowTiles x 16 rows, and every kColumnWarps-th 16 columns.
  static constexpr int column_warps(int row_tiles) { return kTile.warps * 16 * row_tiles / kRows; }
  static constexpr int columns_per_warp(int row_tiles) {
    return (kHeadDim / 16 + column_warps(row_tiles) - 1) / column_warps(row_tiles);
  }
  static constexpr int kRowTiles = kRows >= 32 && 2 * columns_per_warp(2) <= columns_per_warp(1) ? 2 : 1;
  static constexpr int kColumnWarps = column_warps(kRowTiles), kColumnTiles = columns_per_warp(kRowTiles);

  /// dS K of a tile of queries, added to the sums in memory.
  __device__ void add_grad_queries(const Queries& tile, int stage) {
    this->forget();
    !limited(call_) || keys_finite() ? add_grad_queries<false>(tile, stage) : add_grad_queries<true>(tile, stage);
  }
  template <bool kFinitePart>
  __device__ void add_grad_queries(const Queries& tile, int stage) const {
    static_assert(kTile.warps * 16 * kRowTiles == kRows * kColumnWarps);
    const int first_row = warp() / kColumnWarps * 16 * kRowTiles, first_tile = warp() % kColumnWarps;
    const FragmentReader<kRows, Fragment::kATrans, true> scores(shared_address_ + grad_scores_begin(stage), lane());
    const FragmentReader<kHeadDim, Fragment::kBTrans, true> keys(k_tile(), lane());
    float sums[kRowTiles][kColumnTiles][2][4] = {};
#pragma unroll
    for (int j = 0; j < kKeys; j += 16) {
      uint32_t a[kRowTiles][4];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) scores.load(a[m], j, first_row + m * 16);
#pragma unroll
      for (int t = 0; t < kColumnTiles; ++t) {
        const int column_tile = first_tile + t * kColumnWarps;
        if (kHeadDim / 16 % kColumnWarps != 0 && column_tile >= kHeadDim / 16) break;
        uint32_t b[4];
        keys.load(b, j, column_tile * 16);
        if constexpr (kFinitePart) keep_finite<T>(b);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          Arch::template multiply_add<T>(sums[m][t][0], a[m], b[0], b[1]);
          Arch::template multiply_add<T>(sums[m][t][1], a[m], b[2], b[3]);
        }
      }
    }
    const Places& of = places();
    const int i = tile.row + first_row + accumulator_row(lane());
    float* const grad_q = held(of.grad_q + (tile.head - of.first_head) * of.sums_per_head + int64_t{i} * kHeadDim +
                               first_tile * 16 + accumulator_column(lane()));
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int t = 0; t < kColumnTiles; ++t) {
        const int column = (first_tile + t * kColumnWarps) * 16;
        if (kHeadDim / 16 % kColumnWarps != 0 && column >= kHeadDim) break;
        if constexpr (kFinitePart) {
          const Visibility visibility(call_, of.sequence);
          const Range seen[2] = {within(visibility.keys_of(i + m * 16), of.first, kKeys),
                                 within(visibility.keys_of(i + m * 16 + 8), of.first, kKeys)};
          mark_seen<T, kHeadDim>(sums[m][t], shared_, seen, column, lane());
        }
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          if (i + m * 16 + r * 8 >= of.sequence.end_q) continue;
          float* const to = grad_q + (m * 16 + r * 8) * kHeadDim + t * kColumnWarps * 16;
          add_pair_to_global(to, sums[m][t][0][2 * r], sums[m][t][0][2 * r + 1]);
          add_pair_to_global(to + 8, sums[m][t][1][2 * r], sums[m][t][1][2 * r + 1]);
        }
      }
    }
  }
};

template <class Kernel>
__global__ __launch_bounds__(Kernel::kThreads, 1) void bwd_kv_kernel(const __grid_constant__ BwdCall call,
                                                                     const __grid_constant__ BwdScratch scratch) {
  Kernel kernel(call, scratch, dynamic_shared_memory());
  if constexpr (Kernel::kInOrder) {
    kernel.run_head(blockIdx.x);
  } else {
    kernel.run(blockIdx.x);
  }
}

}  // namespace strobe::cuda
