// The backward over key blocks (FlashAttention-2: Dao 2023, arXiv 2307.08691, Algorithm 2): a block takes one tile of
// keys of one key/value head and walks over the queries, of every query head of the group, that see them. Each warp has
// 16 keys or 32 and computes the transposes S^T = K Q^T and dP^T = V dO^T, whose accumulators are, rounded, the left
// operands of dV += P^T dO and dK += dS^T Q: only dQ = dS K, a sum over the warps' keys, goes through shared memory.
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
  using Base::call_, Base::shared_, Base::shared_address_, Base::batch_, Base::head_k_, Base::grad_k_, Base::grad_v_;
  using Base::k_tile, Base::v_tile, Base::lane, Base::warp, Base::thread;
  using Base::kKeyTiles, Base::kWarpKeys, Base::kKeys, Base::kStrip, Base::kKeyBytes;
  using typename Base::Layout, typename Base::Rounded;
  static constexpr int kRows = kTile.rows;
  using ScoreLayout = TileLayout<kRows>;  // dS^T

 public:
  static constexpr int kThreads = kTile.threads();
  static constexpr bool kInOrder = kPass == KvPass::kKeysValuesQueriesInOrder;
  static constexpr bool kWithQueries = kPass == KvPass::kKeysValuesQueries || kInOrder;
  static constexpr int kRowBytes = Layout::bytes(kRows);
  static constexpr int kStatsBytes = kRows * static_cast<int>(sizeof(RowStats));
  static constexpr int kStageBytes = 2 * kRowBytes + kStatsBytes;
  static constexpr int kScoresBegin = 2 * kKeyBytes + 2 * kStageBytes;
  static constexpr int kSharedBytes = kScoresBegin + (kWithQueries ? ScoreLayout::bytes(kKeys) : 0);

  __device__ BwdKv(const BwdCall& call, const BwdScratch& scratch, unsigned char* shared)
      : Base(call, shared), scratch_(scratch) {}

  /// One block a tile.
  static int64_t num_blocks(const BwdCall& call) { return int64_t{num_tiles(call)} * num_heads(call); }
  __device__ void run(int64_t index) {
    const int tiles = num_tiles(call_);
    const int first = static_cast<int>(index % tiles) * kKeys;  // under a causal mask the longest first
    const Sequence s = set_head(index / tiles);
    if (batch_ < call_.batch) {
      if (first < s.num_k) run_tile(s, first);
      return;
    }
    for (int key = first; key < s.num_k; key += tiles * kKeys) write_zeros(s, key);
  }

  /// One block a head: its tiles in their order.
  static int64_t num_heads(const BwdCall& call) { return call.num_heads_k * (call.batch + (call.varlen() ? 1 : 0)); }
  __device__ void run_head(int64_t index) {
    const Sequence s = set_head(index);
    for (int first = 0; first < s.num_k; first += kKeys) {
      if (first > 0) __syncthreads();  // the staging becomes tiles of K and V
      run_tile(s, first);
    }
  }

 private:
  /// Head `index` of all sequences; behind the last of them are the spare tokens.
  __device__ Sequence set_head(int64_t index) {
    head_k_ = static_cast<int>(index % call_.num_heads_k);
    batch_ = static_cast<int>(index / call_.num_heads_k);
    return batch_ == call_.batch ? spare_tokens(call_) : sequence(call_, batch_);
  }

  __device__ void run_tile(const Sequence& s, int first) {
    const Range rows = Visibility(call_, s).rows_of_keys(first, first + kKeys);
    if (rows.empty()) {
      write_zeros(s, first);
      return;
    }
    // From the start of a tile on: what the keys do not see there is hidden like any other pair.
    accumulate(s, first, {rows.begin / kRows * kRows, rows.end});
    Arch::wait();
    __syncthreads();  // the tiles of K and V become staging
    if constexpr (kWithKeys) this->write(call_.grad_k, grad_k_, call_.softmax_scale, first, 0);
    const float scale = kDropout ? dropout_scale(call_.dropout_threshold) : 1.0f;
    if constexpr (kWithValues) this->write(call_.grad_v, grad_v_, scale, first, kKeyBytes);
  }

  static __host__ __device__ int num_tiles(const BwdCall& call) { return max(1, (call.seqlen_k + kKeys - 1) / kKeys); }

  __device__ uint32_t q_tile(int stage) const { return shared_address_ + 2 * kKeyBytes + stage * kStageBytes; }
  __device__ uint32_t grad_out_tile(int stage) const { return q_tile(stage) + kRowBytes; }
  __device__ uint32_t stats_tile(int stage) const { return q_tile(stage) + 2 * kRowBytes; }
  __device__ uint32_t scores_tile() const { return shared_address_ + kScoresBegin; }

  __device__ void write_zeros(const Sequence& s, int first) const {
    const int rows = min(kKeys, s.num_k - first), chunks = call_.head_dim / kChunkElements;
    const auto fill = [&](const Strided& t) {
      T* data = s.k_rows<T>(call_, t, head_k_);
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

    __device__ void finish() {
      q.finish(thread());
      grad_out.finish(thread());
      stats.finish();
    }
  };

  __device__ void load_queries(QueryCopies& copies, const Range& rows, int head, int row, int stage) const {
    const Sequence s = sequence(call_, batch_);  // read again, here and below: registers are few
    const RowSource q{s.q_rows<T>(call_, call_.q, head), call_.q.row_stride, rows.begin, rows.end, call_.head_dim};
    const RowSource grad_out{s.q_rows<T>(call_, call_.grad_out, head), call_.grad_out.row_stride, rows.begin, rows.end,
                             call_.head_dim};
    copies.q.start(q_tile(stage), q, row, thread());
    copies.grad_out.start(grad_out_tile(stage), grad_out, row, thread());
    const RowStats* stats = scratch_.stats + s.lse_offset(call_, head);
    if (thread() < kRows) {
      const int i = row + thread();
      const bool valid = i >= rows.begin && i < rows.end;
      const auto to = static_cast<uint32_t>(stats_tile(stage) + thread() * sizeof(RowStats));
      copies.stats.start(to, stats + (valid ? i : 0), valid);
    }
  }

  __device__ void accumulate(const Sequence& s, int first, const Range& rows) {
    const Visibility visibility(call_, s);
    const Range keys = visibility.keys_of_rows(0, s.end_q);
    const RowSource k{s.k_rows<T>(call_, call_.k, head_k_), call_.k.row_stride, keys.begin, keys.end, call_.head_dim};
    const RowSource v{s.k_rows<T>(call_, call_.v, head_k_), call_.v.row_stride, keys.begin, keys.end, call_.head_dim};
    typename Arch::template TileCopy<kKeys, kHeadDim, kThreads> keys_copy;
    keys_copy.start(k_tile(), k, first, thread());
    keys_copy.finish(thread());
    if constexpr (kWithKeys) {
      keys_copy.start(v_tile(), v, first, thread());
      keys_copy.finish(thread());
    }
    QueryCopies copies;
    int head = head_k_ * call_.group(), row = rows.begin;
    load_queries(copies, rows, head, row, 0);
    Arch::commit();

    const int warp_key = first + warp() * kWarpKeys;
    this->start();
    bool k_finite = true;
    if (kWithQueries && limited(call_)) {
      Arch::wait();
      __syncthreads();
      k_finite = all_finite<T, kKeys, kHeadDim>(shared_, lane());
    }
    for (int stage = 0; head < (head_k_ + 1) * call_.group(); stage ^= 1) {
      int next_head = head, next_row = row + kRows;
      if (next_row >= rows.end) {
        next_row = rows.begin;
        ++next_head;
      }
      copies.finish();
      Arch::wait();
      __syncthreads();  // the stage has arrived, and nobody reads the other one any more
      if (next_head < (head_k_ + 1) * call_.group()) load_queries(copies, rows, next_head, next_row, stage ^ 1);
      Arch::commit();
      add_tile(stage, head, row, warp_key);
      if constexpr (kWithQueries) {
        __syncthreads();  // dS of all keys is there
        k_finite ? add_grad_queries<false>(head, row, first) : add_grad_queries<true>(head, row, first);
      }
      head = next_head;
      row = next_row;
    }
  }

  /// What the rows of one tile of queries add to the warp's dK and dV.
  __device__ void add_tile(int stage, int head, int row, int warp_key) {
    const Visibility visibility(call_, sequence(call_, batch_));
    const Range some = visibility.rows_of_keys(warp_key, warp_key + kWarpKeys);
    const Range all = warp_key + kWarpKeys <= visibility.end_k
                          ? visibility.rows_of_all_keys(warp_key, warp_key + kWarpKeys)
                          : Range{0, 0};
#pragma unroll 1
    for (int strip = 0; strip < kRows; strip += kStrip) {
      const int strip_row = row + strip;
      if (strip_row < some.end && strip_row + kStrip > some.begin) {
        const uint32_t q = q_tile(stage) + Layout::bytes(strip), grad_out = grad_out_tile(stage) + Layout::bytes(strip);
        const auto* stats =
            reinterpret_cast<const float4*>(shared_ + (stats_tile(stage) - shared_address_)) + strip / 2 + lane() % 4;
        this->add_strip(q, grad_out, stats, head, strip_row, warp_key,
                        strip_row < all.begin || strip_row + kStrip > all.end, [&](const Rounded& ds) {
                          if constexpr (kWithQueries) store_scores(ds, strip);
                        });
      } else if constexpr (kWithQueries) {
        const Rounded zeros = {};
        store_scores(zeros, strip);
      }
    }
  }

  __device__ void store_scores(const Rounded& ds, int strip) const {
#pragma unroll
    for (int m = 0; m < kKeyTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kStrip / 8; ++n) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int key = warp() * kWarpKeys + m * 16 + half * 8 + accumulator_row(lane());
          *reinterpret_cast<uint32_t*>(shared_ + kScoresBegin + ScoreLayout::offset(key, strip / 8 + n) +
                                       lane() % 4 * 4) = ds[m][n][half];
        }
      }
    }
  }

  /// dS K of the tile, added to the sums in memory. The warps are spread over the tile's rows and then its columns.
  template <bool kFinitePart>
  __device__ void add_grad_queries(int head, int row, int first) const {
    constexpr int kRowTiles = kKeyTiles, kRowWarps = kRows / (16 * kRowTiles), kColumnWarps = kTile.warps / kRowWarps;
    static_assert(kTile.warps == kRowWarps * kColumnWarps);
    constexpr int kColumnTiles = kHeadDim / 16, kTilesPerWarp = (kColumnTiles + kColumnWarps - 1) / kColumnWarps;
    // The registers are full of dK and dV.
    constexpr int kAtOnce = kKeyTiles > 1 ? 1 : kTilesPerWarp < 4 ? kTilesPerWarp : 2;
    const int scores_row = warp() % kRowWarps * 16 * kRowTiles;
#pragma unroll 1
    for (int t = warp() / kRowWarps; t < kColumnTiles; t += kAtOnce * kColumnWarps) {
      add_grad_queries<kFinitePart, kRowTiles, kAtOnce, kColumnWarps>(head, row + scores_row, first, scores_row, t);
    }
  }

  /// The same for kRowTiles x 16 rows, the one at `row` being `scores_row` of dS, and kTiles x 16 columns: the tiles
  /// first_tile, first_tile + kStep, ...
  template <bool kFinitePart, int kRowTiles, int kTiles, int kStep>
  __device__ void add_grad_queries(int head, int row, int first, int scores_row, int first_tile) const {
    const FragmentReader<kRows, Fragment::kATrans> scores(scores_tile(), lane());
    const FragmentReader<kHeadDim, Fragment::kBTrans> keys(k_tile(), lane());
    float sums[kRowTiles][kTiles][2][4] = {};
#pragma unroll 4
    for (int j = 0; j < kKeys; j += 16) {
      uint32_t a[kRowTiles][4];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) scores.load(a[m], j, scores_row + m * 16);
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        if (first_tile + t * kStep >= kHeadDim / 16) break;
        uint32_t b[4];
        keys.load(b, j, (first_tile + t * kStep) * 16);
        if constexpr (kFinitePart) keep_finite<T>(b);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          Arch::template multiply_add<T>(sums[m][t][0], a[m], b[0], b[1]);
          Arch::template multiply_add<T>(sums[m][t][1], a[m], b[2], b[3]);
        }
      }
    }
    const Sequence s = sequence(call_, batch_);
    float* grad_q = scratch_.grad_q + s.lse_offset(call_, head) * kHeadDim;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      const int i = row + m * 16 + accumulator_row(lane());
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const int column = (first_tile + t * kStep) * 16;
        if (column >= kHeadDim) break;
        if constexpr (kFinitePart) {
          const Visibility visibility(call_, s);
          const Range seen[2] = {within(visibility.keys_of(i), first, kKeys),
                                 within(visibility.keys_of(i + 8), first, kKeys)};
          mark_seen<T, kHeadDim>(sums[m][t], shared_, seen, column, lane());
        }
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          if (i + r * 8 >= s.end_q) continue;
          float* to = grad_q + static_cast<int64_t>(i + r * 8) * kHeadDim + column + accumulator_column(lane());
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
