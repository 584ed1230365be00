// The backward over key blocks (FlashAttention-2: Dao 2023, arXiv 2307.08691, Algorithm 2): a block takes one tile of
// keys of one key/value head and walks over the queries, of every query head of the group, that see them. Each warp
// computes the transposes S^T = K Q^T and dP^T = V dO^T of its keys, whose accumulators are, rounded, the left operands
// of dV += P^T dO and dK += dS^T Q. dQ = dS K, a sum over the warps' keys, goes through shared memory: a tile of
// queries later, so that one barrier a tile orders everything and its products are independent of those around it.
#pragma once

#include "src/attention/cuda/common/launch.h"
#include "src/attention/cuda/mma/bwd_keys.cuh"

namespace strobe::cuda {

/// Which gradients a pass over the keys produces.
enum class KvPass {
  kKeysValues,
  kKeysValuesQueries,         // dQ too, its parts added to fp32 sums in memory, in any order
  kKeysValuesQueriesInOrder,  // dQ too, by one block a head, tile by tile of the keys: always the same thread adds to
                              // an element, and what a thread adds to an address keeps its order
  kKeys,
  kValues,
};

template <class Arch, class T, int kHeadDim, BwdKvTile kTile, KvPass kPass, bool kDropout>
class BwdKv : BwdKeys<Arch, T, kHeadDim, kTile, kPass != KvPass::kValues, kPass != KvPass::kKeys, kDropout> {
  static constexpr bool kWithKeys = kPass != KvPass::kValues, kWithValues = kPass != KvPass::kKeys;
  using Base = BwdKeys<Arch, T, kHeadDim, kTile, kWithKeys, kWithValues, kDropout>;
  using Base::call_, Base::shared_, Base::shared_address_, Base::grad_k_, Base::grad_v_;
  using Base::k_tile, Base::v_tile, Base::lane, Base::warp, Base::thread, Base::group, Base::part, Base::first_key;
  using Base::kKeyTiles, Base::kWarpKeys, Base::kKeys, Base::kStrip, Base::kMaskedStrip, Base::kKeyBytes, Base::kGroups;
  using typename Base::KeyFragments, typename Base::Layout;
  template <int kRows>
  using Rounded = typename Base::template Rounded<kRows>;
  static constexpr int kRows = kTile.rows, kParts = kTile.column_warps, kPartRows = kRows / kParts;
  using ScoreLayout = TileLayout<kRows>;  // of dS^T and P^T
  // Two strips as one piece of code, whose instructions mix. With dropout it would spill.
  static constexpr bool kSideBySide = kParts == 1 && kPartRows == 2 * kStrip && !kDropout;

 public:
  static constexpr int kThreads = kTile.threads();
  static constexpr bool kInOrder = kPass == KvPass::kKeysValuesQueriesInOrder;
  static constexpr bool kWithQueries = kPass == KvPass::kKeysValuesQueries || kInOrder;
  static constexpr int kRowBytes = Layout::bytes(kRows);
  static constexpr int kStatsBytes = kRows * static_cast<int>(sizeof(RowStats));
  static constexpr int kStageBytes = 2 * kRowBytes + kStatsBytes;
  // dS of this tile and, where dQ is wanted, of the one before; P where warps share their keys.
  static constexpr int kScoreBytes = ScoreLayout::bytes(kKeys);
  static constexpr int kGradScoreTiles = kWithQueries ? kTile.score_tiles : kWithKeys && kParts > 1 ? 1 : 0;
  static constexpr int kGradScoresBegin = 2 * kKeyBytes + 2 * kStageBytes;
  static constexpr int kScoresBegin = kGradScoresBegin + kGradScoreTiles * kScoreBytes;
  static constexpr int kPlacesBegin = kScoresBegin + (kParts > 1 && kWithValues ? kScoreBytes : 0);

 private:
  /// A tile of queries.
  struct Queries {
    int head, row;
  };
  /// What the loop over the queries asks again and again, in shared memory, since registers are few.
  struct Places {
    struct GroupRows {
      Range some, all;   // the rows that see any, every key of a group of warps
      bool keys_finite;  // only set where it matters
    };
    Sequence sequence;
    int head_k, first;         // the tile of keys
    int first_head, end_head;  // of the queries
    Range rows;                // that see the tile of keys, from the start of a tile of queries on
    Queries tiles[2];          // of the stages
    // Row 0 of the first of the heads, and the distance to the next in what is shaped like the LSE.
    const T *q, *grad_out;
    const RowStats* stats;
    float* grad_q;
    int64_t rows_per_head;
    float dropout_scale;
    GroupRows groups[kGroups];
  };

 public:
  static constexpr int kSharedBytes = kPlacesBegin + static_cast<int>(sizeof(Places));

  __device__ BwdKv(const BwdCall& call, const BwdScratch& scratch, unsigned char* shared)
      : Base(call, shared), scratch_(scratch) {}

  /// One block a tile.
  static int64_t num_blocks(const BwdCall& call) { return int64_t{num_tiles(call)} * num_heads(call); }
  __device__ void run(int64_t index) {
    const int tiles = num_tiles(call_);
    const int first = static_cast<int>(index % tiles) * kKeys;  // under a causal mask the longest first
    const int64_t head = index / tiles;
    const Sequence s = sequence_of(head);
    const int head_k = static_cast<int>(head % call_.num_heads_k);
    if (s.index < call_.batch) {
      if (first < s.num_k) run_tile(s, head_k, first);
      return;
    }
    for (int key = first; key < s.num_k; key += tiles * kKeys) write_zeros(s, head_k, key);
  }

  /// One block a head: its tiles in their order.
  static int64_t num_heads(const BwdCall& call) { return call.num_heads_k * (call.batch + (call.varlen() ? 1 : 0)); }
  __device__ void run_head(int64_t head) {
    const Sequence s = sequence_of(head);
    for (int first = 0; first < s.num_k; first += kKeys) {
      if (first > 0) __syncthreads();  // the staging becomes tiles of K and V
      run_tile(s, static_cast<int>(head % call_.num_heads_k), first);
    }
  }

 private:
  /// Of a head of all sequences; behind the last of them are the spare tokens.
  __device__ Sequence sequence_of(int64_t head) const {
    const int64_t batch = head / call_.num_heads_k;
    return batch == call_.batch ? spare_tokens(call_) : sequence(call_, batch);
  }

  __device__ void run_tile(const Sequence& s, int head_k, int first) {
    const Range rows = Visibility(call_, s).rows_of_keys(first, first + kKeys);
    if (rows.empty()) {
      write_zeros(s, head_k, first);
      return;
    }
    // From the start of a tile on: what the keys do not see there is hidden like any other pair.
    set_places(s, head_k, first, {rows.begin / kRows * kRows, rows.end});
    load_keys(s, head_k, first);
    __syncthreads();
    accumulate();
    __syncthreads();  // the tiles of K and V become staging
    if constexpr (kWithKeys) write(call_.grad_k, grad_k_, call_.softmax_scale, 0);
    if constexpr (kWithValues) write(call_.grad_v, grad_v_, places().dropout_scale, kKeyBytes);
  }

  template <class Gradient>
  __device__ void write(const Strided& to, const Gradient& gradient, float scale, int tile_begin) const {
    Base::write(to, gradient, scale, places().sequence, places().head_k, places().first, tile_begin);
  }

  static __host__ __device__ int num_tiles(const BwdCall& call) { return max(1, (call.seqlen_k + kKeys - 1) / kKeys); }

  __device__ uint32_t q_tile(int stage) const { return shared_address_ + 2 * kKeyBytes + stage * kStageBytes; }
  __device__ uint32_t grad_out_tile(int stage) const { return q_tile(stage) + kRowBytes; }
  __device__ uint32_t stats_tile(int stage) const { return q_tile(stage) + 2 * kRowBytes; }
  /// Of dS of the tile of queries whose stage this is.
  __device__ int grad_scores_begin(int stage) const {
    return kGradScoresBegin + (kGradScoreTiles > 1 ? stage * kScoreBytes : 0);
  }
  __device__ Places& places() const { return *reinterpret_cast<Places*>(shared_ + kPlacesBegin); }

  __device__ void write_zeros(const Sequence& s, int head_k, int first) const {
    const int rows = min(kKeys, s.num_k - first), chunks = call_.head_dim / kChunkElements;
    const auto fill = [&](const Strided& t) {
      T* data = s.k_rows<T>(call_, t, head_k);
      for (int e = thread(); e < rows * chunks; e += kThreads) {
        T* row = data + static_cast<int64_t>(first + e / chunks) * t.row_stride;
        *reinterpret_cast<uint4*>(row + e % chunks * kChunkElements) = uint4{0, 0, 0, 0};
      }
    };
    if constexpr (kWithKeys) fill(call_.grad_k);
    if constexpr (kWithValues) fill(call_.grad_v);
  }

  /// Of a stage.
  struct QueryCopies {
    typename Arch::template TileCopy<kRows, kHeadDim, kThreads> q, grad_out;
    typename Arch::WordCopy stats;

    __device__ void finish(int thread) {
      q.finish(thread);
      grad_out.finish(thread);
      stats.finish();
    }
  };

  __device__ void load_queries(QueryCopies& copies, const Queries& tile, int stage) const {
    const Places& of = places();
    const int head = tile.head - of.first_head;
    const RowSource q{of.q + head * call_.q.head_stride, call_.q.row_stride, of.rows.begin, of.rows.end,
                      call_.head_dim};
    const RowSource grad_out{of.grad_out + head * call_.grad_out.head_stride, call_.grad_out.row_stride, of.rows.begin,
                             of.rows.end, call_.head_dim};
    const RowStats* stats = of.stats + head * of.rows_per_head;
    const int i = tile.row + thread();
    const bool valid = i >= of.rows.begin && i < of.rows.end;
    copies.q.start(q_tile(stage), q, tile.row, thread());
    copies.grad_out.start(grad_out_tile(stage), grad_out, tile.row, thread());
    if (thread() < kRows) {
      const auto to = static_cast<uint32_t>(stats_tile(stage) + thread() * sizeof(RowStats));
      copies.stats.start(to, stats + (valid ? i : 0), valid);
    }
  }

  __device__ void load_keys(const Sequence& s, int head_k, int first) const {
    const Range keys = Visibility(call_, s).keys_of_rows(0, s.end_q);
    const RowSource k{s.k_rows<T>(call_, call_.k, head_k), call_.k.row_stride, keys.begin, keys.end, call_.head_dim};
    const RowSource v{s.k_rows<T>(call_, call_.v, head_k), call_.v.row_stride, keys.begin, keys.end, call_.head_dim};
    typename Arch::template TileCopy<kKeys, kHeadDim, kThreads> copy;
    copy.start(k_tile(), k, first, thread());
    copy.finish(thread());
    if constexpr (kWithKeys) {
      copy.start(v_tile(), v, first, thread());
      copy.finish(thread());
    }
  }

  __device__ void set_places(const Sequence& s, int head_k, int first, const Range& rows) const {
    const Visibility visibility(call_, s);
    if (thread() == 0) {
      places().sequence = s;
      places().head_k = head_k;
      places().first = first;
      places().first_head = head_k * call_.group();
      places().end_head = places().first_head + call_.group();
      places().rows = rows;
      places().tiles[0] = {places().first_head, rows.begin};
      places().q = s.q_rows<T>(call_, call_.q, places().first_head);
      places().grad_out = s.q_rows<T>(call_, call_.grad_out, places().first_head);
      places().stats = scratch_.stats + s.lse_offset(call_, places().first_head);
      places().grad_q = scratch_.grad_q + s.lse_offset(call_, places().first_head) * kHeadDim;
      places().dropout_scale = kDropout ? dropout_scale(call_.dropout_threshold) : 1.0f;
      places().rows_per_head = call_.varlen() ? call_.total_q : call_.seqlen_q;
    }
    if (thread() < kGroups) {
      const int key = first + thread() * kWarpKeys;
      const Range some = visibility.rows_of_keys(key, key + kWarpKeys);
      places().groups[thread()] = {some, some.empty() ? some : visibility.rows_of_all_keys(key, key + kWarpKeys), true};
    }
  }

  __device__ void accumulate() {
    QueryCopies copies;
    load_queries(copies, places().tiles[0], 0);
    Arch::commit();
    this->start();
    if (limited(call_) || places().rows.end % kRows != 0) check_keys();
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

  /// Infinities and NaN in keys matter where a query does not see them: their products with zeros are NaN. Where there
  /// are none, the rows behind the last, which are zeros, may pass as rows that see them.
  __device__ void check_keys() {
    Arch::wait();
    __syncthreads();
    const bool finite = all_finite<T, kWarpKeys, kHeadDim>(shared_ + Layout::bytes(first_key()), lane());
    if (part() > 0 || lane() > 0) return;
    typename Places::GroupRows& group = places().groups[this->group()];
    group.keys_finite = finite;
    if (finite && group.all.end == places().sequence.end_q) group.all.end = kLongestSequence;
  }
  __device__ bool keys_finite() const {
    bool finite = true;
    for (int i = 0; i < kGroups; ++i) finite = finite && places().groups[i].keys_finite;
    return finite;
  }

  // The tiles of queries in their order: those of the group's heads, one after the other.
  __device__ Queries next(const Queries& tile) const {
    const Range rows = places().rows;
    return tile.row + kRows < rows.end ? Queries{tile.head, tile.row + kRows} : Queries{tile.head + 1, rows.begin};
  }
  __device__ bool has_previous(const Queries& tile) const {
    return tile.row > places().rows.begin || tile.head > places().first_head;
  }
  __device__ Queries previous(const Queries& tile) const {
    const Range rows = places().rows;
    if (tile.row > rows.begin) return {tile.head, tile.row - kRows};
    return {tile.head - 1, rows.begin + (rows.end - rows.begin - 1) / kRows * kRows};
  }

  /// Whether `count` rows see none of the warp's keys, all of them, or some.
  enum class Sees { kNone, kSome, kAll };
  __device__ Sees sees(int row, int count) const {
    const typename Places::GroupRows& rows = places().groups[group()];
    if (row >= rows.some.end || row + count <= rows.some.begin) return Sees::kNone;
    return row >= rows.all.begin && row + count <= rows.all.end ? Sees::kAll : Sees::kSome;
  }

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
    float* const grad_q = held(of.grad_q + ((tile.head - of.first_head) * of.rows_per_head + i) * kHeadDim +
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

  const BwdScratch& scratch_;
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
