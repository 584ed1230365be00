// The backward over key blocks on wgmma (FlashAttention-2: Dao 2023, arXiv 2307.08691, Algorithm 2). A warpgroup has 64
// keys: it computes the transposes S^T = K Q^T and dP^T = V dO^T, whose accumulators are, rounded, the left operands of
// dV += P^T dO and dK += dS^T Q. dS goes through shared memory; a tile of queries later, so that one barrier a tile
// orders everything, the warpgroups share dQ = dS K, whose accumulators are added to sums in the order of the
// registers.
#pragma once

#include "src/attention/cuda/common/dropout.cuh"
#include "src/attention/cuda/mma/arch.cuh"
#include "src/attention/cuda/mma/bwd_block.cuh"
#include "src/attention/cuda/sm90/bwd_sums.cuh"
#include "src/attention/cuda/sm90/stores.cuh"
#include "src/attention/cuda/sm90/wgmma.cuh"

namespace strobe::cuda::sm90 {

/// Tiles in panels.
struct Panels {
  template <int kColumns, int kRows>
  using Layout = PanelLayout<kColumns, kRows>;

  template <int kRows, int kColumns, int kThreads>
  class TileCopy {
   public:
    __device__ void start(uint32_t tile, const RowSource& source, int first, int thread) {
      copy_tile_async<kRows, kColumns, kThreads, Layout<kColumns, kRows>>(tile, source, first, thread);
    }
    __device__ void finish(int) {}
  };
  using WordCopy = Sm80::WordCopy;
};

template <int kHeadDim, bool kDropout>
struct BwdShape {
  static constexpr int kGroups = kBwdWarpgroups, kKeys = kGroups * 64, kRows = bwd_rows(kHeadDim, kDropout),
                       kThreads = kGroups * kWarpgroup;
  static constexpr int kKeyBytes = kKeys * kHeadDim * 2, kRowBytes = kRows * kHeadDim * 2;
  static constexpr int kStageBytes = 2 * kRowBytes, kScoreBytes = kKeys * kRows * 2;
  static constexpr int kStatsBytes = kRows * static_cast<int>(sizeof(RowStats));
  static constexpr int kStagesBegin = 2 * kKeyBytes;
  static constexpr int kScoresBegin = kStagesBegin + 2 * kStageBytes;
  static constexpr int kStatsBegin = kScoresBegin + 2 * kScoreBytes;
  static constexpr int kPlacesBegin = kStatsBegin + 2 * kStatsBytes;
};

template <class T, int kHeadDim, bool kDropout>
class BwdKv : public BwdBlock<Panels, T, kHeadDim, BwdShape<kHeadDim, kDropout>,
                              TileSums<kHeadDim, bwd_rows(kHeadDim, kDropout)>, KvPass::kKeysValuesQueries> {
  using Shape = BwdShape<kHeadDim, kDropout>;
  using Sums = TileSums<kHeadDim, Shape::kRows>;
  using Base = BwdBlock<Panels, T, kHeadDim, Shape, Sums, KvPass::kKeysValuesQueries>;
  using Base::call_, Base::shared_, Base::shared_address_, Base::places, Base::next, Base::forget;
  using Base::k_tile, Base::v_tile, Base::lane, Base::warp, Base::thread, Base::kKeys, Base::kRows, Base::kKeyBytes;
  using typename Base::KeyLayout, typename Base::Places, typename Base::Queries, typename Base::QueryCopies,
      typename Base::Sees;
  using RowLayout = PanelLayout<kHeadDim, kRows>;
  using ScoreLayout = PanelLayout<kRows, kKeys>;  // of dS^T
  static constexpr int kGradColumns = Sums::kColumns;
  // 64 rows after the other 64: the exponentials of one part are under the products of the other, and registers
  // suffice.
  static constexpr int kParts = kRows / 64, kPartRows = kRows / kParts;
  using Scores = float[kRows / 8][4];        // of S^T and dP^T
  using Rounded = uint32_t[kRows / 16][4];   // left operands: the warp's 16 keys by kRows
  using GradQ = float[kGradColumns / 8][4];  // the warp's 16 rows
  using Gradient = float[1][kHeadDim / 8][4];

 public:
  using Base::kThreads, Base::kSharedBytes;
  static_assert(kSharedBytes <= 227 * 1024);

  __device__ BwdKv(const BwdCall& call, const BwdScratch& scratch, unsigned char* shared)
      : Base(call, scratch, shared) {}

  __device__ void run(int64_t index) {
    this->run_block(index, [&] {
      __syncthreads();
      accumulate();
      __syncthreads();  // the tiles of K and V become staging
      this->write(call_.grad_k, grad_k_, call_.softmax_scale, 0, first_key(), 0);
      this->write(call_.grad_v, grad_v_, places().dropout_scale, kKeyBytes, first_key(), 0);
    });
  }

 private:
  __device__ int group() const { return uniform(thread() / kWarpgroup); }
  __device__ int first_key() const { return warp() * 16; }  // in the tile
  __device__ uint32_t q_tile(int stage) const {
    return shared_address_ + Shape::kStagesBegin + stage * Shape::kStageBytes;
  }
  __device__ uint32_t grad_out_tile(int stage) const { return q_tile(stage) + Shape::kRowBytes; }
  __device__ uint32_t stats_tile(int stage) const {
    return shared_address_ + Shape::kStatsBegin + stage * Shape::kStatsBytes;
  }
  __device__ uint32_t grad_scores(int stage) const {
    return shared_address_ + Shape::kScoresBegin + stage * Shape::kScoreBytes;
  }
  __device__ const unsigned char* at(uint32_t address) const { return shared_ + (address - shared_address_); }

  __device__ void load_queries(const Queries& tile, int stage) const {
    QueryCopies copies;
    Base::load_queries(copies, tile, q_tile(stage), grad_out_tile(stage), stats_tile(stage));
  }

  __device__ void accumulate() {
    load_queries(places().tiles[0], 0);
    cp_async_commit();
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) grad_k_[0][n][e] = grad_v_[0][n][e] = 0.0f;
    }
    if (this->keys_matter()) check_keys();
    float* sums = nullptr;  // of the tile before
    int stage = 0;
    while (true) {
      cp_async_wait<0>();
      wgmma_fence_shared();
      __syncthreads();  // the stage and dS of the one before are there, and nobody reads what comes in their places
      const Queries tile = places().tiles[stage], after = next(tile);
      const bool last = after.head >= places().end_head;
      if (thread() == 0) places().tiles[stage ^ 1] = after;
      add_tile(tile, after, last, stage, sums);
      sums =
          places().grad_q + (tile.head - places().first_head) * places().sums_per_head + int64_t{tile.row} * kHeadDim;
      stage ^= 1;
      if (last) break;
    }
    wgmma_fence_shared();
    __syncthreads();
    GradQ grad_q;
    wgmma_fence();
    multiply_grad_queries(grad_q, stage ^ 1);
    wgmma_wait<0>(grad_q);
    add_sums(grad_q, sums, stage ^ 1);
  }

  __device__ void check_keys() {
    cp_async_wait<0>();
    __syncthreads();
    const bool finite = all_finite(k_tile(), kKeyBytes);
    if (thread() < Shape::kGroups) this->set_keys_finite(thread(), finite);
  }

  /// What a tile of queries adds to dK and dV; its dS goes to shared memory. dQ of the tile before goes to `sums`.
  __device__ void add_tile(const Queries& tile, const Queries& after, bool last, int stage, float* sums) {
    forget();
    // Where the block's keys see the same rows, infinities and NaN are in the gradients of all of them.
    const bool finite = !limited(call_) || all_seen(tile.row) || all_finite(q_tile(stage), Shape::kStageBytes);
    if (!finite) mark_rows(stage, tile.row);
    Scores x, dx;
    wgmma_fence();
    multiply_keys(x, k_tile(), q_tile(stage));
    multiply_keys(dx, v_tile(), grad_out_tile(stage));
    if (!last) load_queries(after, stage ^ 1);
    cp_async_commit();
    const auto* stats = reinterpret_cast<const float4*>(at(stats_tile(stage))) + lane() % 4;
    uint32_t kept[kRows / 16];
    if constexpr (kDropout) keep(kept, tile);
    if (!finite) {
      wgmma_wait<0>(x, dx);
      __syncthreads();
      keep_finite_rows(stage);
    }
    wgmma_wait<1>(x);
    forget();
    Rounded p, ds;
    GradQ grad_q;
    const auto add_part = [&]<int kPart>() {
      const Sees sees = this->sees(group(), tile.row + kPart * kPartRows, kPartRows);
      make_probabilities<kPart>(p, x, stats, kept, sees, tile.row);
      wgmma_hold(p);
      wgmma_fence();
      multiply_rows<kPart>(grad_v_[0], p, grad_out_tile(stage));
      if constexpr (kPart == 0) wgmma_wait<1>(dx);
      forget();
      make_grad_scores<kPart>(ds, x, dx, stats, kept, sees, tile.row);
      store_grad_scores<kPart>(ds, stage);
      wgmma_hold(ds);
      wgmma_fence();
      if constexpr (kPart == kParts - 1) multiply_grad_queries(grad_q, stage ^ 1);  // of no meaning at the first tile
      multiply_rows<kPart>(grad_k_[0], ds, q_tile(stage));
    };
    add_part.template operator()<0>();
    if constexpr (kParts > 1) add_part.template operator()<1>();
    wgmma_wait<1>(grad_q);
    forget();
    if (sums != nullptr) add_sums(grad_q, sums, stage ^ 1);
    wgmma_wait<0>(grad_k_[0], grad_v_[0], p, ds);
  }

  /// scores = this warpgroup's rows of K or V times rows of Q or dO, transposed.
  __device__ void multiply_keys(Scores& scores, uint32_t keys_tile, uint32_t rows_tile) const {
    const auto keys = WgmmaOperand::k_is_column(keys_tile + group() * KeyLayout::row_bytes(64));
    const auto rows = WgmmaOperand::k_is_column(rows_tile);
#pragma unroll
    for (int d = 0; d < kHeadDim; d += 16) {
      wgmma<T, 0, 0>(scores, keys.at(KeyLayout::column_bytes(d)), rows.at(RowLayout::column_bytes(d)), d > 0);
    }
    wgmma_commit();
  }

  /// gradient += left (P^T or dS^T) times rows of dO or Q.
  template <int kPart>
  __device__ void multiply_rows(float (&gradient)[kHeadDim / 8][4], const Rounded& left, uint32_t rows_tile) const {
    const auto rows = WgmmaOperand::k_is_row(rows_tile, RowLayout::kPanelBytes);
#pragma unroll
    for (int i = kPart * kPartRows; i < (kPart + 1) * kPartRows; i += 16)
      wgmma<T, 1>(gradient, left[i / 16], rows.at(RowLayout::row_bytes(i)), 1);
    wgmma_commit();
  }

  /// grad_q = dS K of the tile of a stage: this warpgroup's 64 rows and columns of them.
  __device__ void multiply_grad_queries(GradQ& grad_q, int stage) const {
    const auto scores = WgmmaOperand::k_is_row(
        grad_scores(stage) + ScoreLayout::column_bytes(group() * Sums::kGroupRows), ScoreLayout::kPanelBytes);
    const auto keys = WgmmaOperand::k_is_row(k_tile() + KeyLayout::column_bytes(group() * Sums::kGroupColumns),
                                             KeyLayout::kPanelBytes);
#pragma unroll
    for (int j = 0; j < kKeys; j += 16) {
      wgmma<T, 1, 1>(grad_q, scores.at(ScoreLayout::row_bytes(j)), keys.at(KeyLayout::row_bytes(j)), j > 0);
    }
    wgmma_commit();
  }

  /// x: scores, then probabilities.
  template <int kPart>
  __device__ void make_probabilities(Rounded& p, Scores& x, const float4* stats, const uint32_t (&kept)[kRows / 16],
                                     Sees sees, int row) const {
    if (sees == Sees::kNone) return clear<kPart>(p);
    const float to_exponent = call_.softmax_scale * kLog2E;
#pragma unroll
    for (int n = kPart * kPartRows / 8; n < (kPart + 1) * kPartRows / 8; ++n) {
      const float4 two = stats[n * 4];  // of the rows of the accumulators' two columns
#pragma unroll
      for (int e = 0; e < 4; ++e) x[n][e] = exp2_approx(fmaf(x[n][e], to_exponent, e % 2 == 0 ? two.x : two.z));
    }
    if (sees == Sees::kSome) hide<kPart>(x, row);  // not before: the LSE of a row may be NaN
#pragma unroll
    for (int i = kPart * kPartRows / 16; i < (kPart + 1) * kPartRows / 16; ++i) {
      float stay[2][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int n = 2 * i + half;
          stay[half][e] = !kDropout || stays(kept, n, e) ? x[n][e] : 0.0f;
        }
      }
      accumulators_to_a<T>(p[i], stay[0], stay[1]);
    }
  }

  /// x: probabilities, then dS; dx: dP.
  template <int kPart>
  __device__ void make_grad_scores(Rounded& ds, Scores& x, Scores& dx, const float4* stats,
                                   const uint32_t (&kept)[kRows / 16], Sees sees, int row) const {
    if (sees == Sees::kNone) return clear<kPart>(ds);
    const float dropout_scale = places().dropout_scale;
#pragma unroll
    for (int n = kPart * kPartRows / 8; n < (kPart + 1) * kPartRows / 8; ++n) {
      const float4 two = stats[n * 4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if constexpr (kDropout) dx[n][e] = stays(kept, n, e) ? dx[n][e] * dropout_scale : 0.0f;
        x[n][e] *= dx[n][e] - (e % 2 == 0 ? two.y : two.w);
      }
    }
    if (sees == Sees::kSome) hide<kPart>(x, row);
#pragma unroll
    for (int i = kPart * kPartRows / 16; i < (kPart + 1) * kPartRows / 16; ++i)
      accumulators_to_a<T>(ds[i], x[2 * i], x[2 * i + 1]);
    // Of keys that are none: their probabilities are exp(-LSE), which may be infinite.
    const int count = places().sequence.end_k - places().first;
    if (count >= kKeys) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (first_key() + half * 8 + accumulator_row(lane()) < count) continue;
#pragma unroll
      for (int i = kPart * kPartRows / 16; i < (kPart + 1) * kPartRows / 16; ++i) ds[i][half] = ds[i][half + 2] = 0;
    }
  }

  template <int kPart>
  static __device__ void clear(Rounded& left) {
#pragma unroll
    for (int i = kPart * kPartRows / 16; i < (kPart + 1) * kPartRows / 16; ++i) {
#pragma unroll
      for (uint32_t& pair : left[i]) pair = 0;
    }
  }

  template <int kPart>
  __device__ void store_grad_scores(const Rounded& ds, int stage) const {
    const int key = first_key() + lane() % 16, chunk = lane() / 16;
#pragma unroll
    for (int i = kPart * kPartRows / 16; i < (kPart + 1) * kPartRows / 16; ++i) {
      stmatrix_x4(grad_scores(stage) + ScoreLayout::offset(key, 2 * i + chunk), ds[i]);
    }
  }

  /// Adds dQ of a tile to its sums, a warp's in the order of its registers.
  __device__ void add_sums(const GradQ& grad_q, float* sums, int stage) const {
    float* const to = sums + warp() * (16 * kGradColumns);
    if (limited(call_) && !this->keys_finite()) return add_seen_keys(to, sums, stage);
#pragma unroll
    for (int n = 0; n < kGradColumns / 8; ++n) add_four_to_global(to + (n * 32 + lane()) * 4, grad_q[n]);
  }

  /// Zeros for what is not visible.
  template <int kPart>
  __device__ void hide(Scores& x, int row) const {
    const Sequence& s = places().sequence;
    const Visibility visibility(call_, s);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int j = places().first + first_key() + half * 8 + accumulator_row(lane());
      const Range visible = j < s.end_k ? visibility.rows_of(j) : Range{0, 0};
      const auto count = static_cast<unsigned>(max(visible.end - visible.begin, 0));
      const int i = row + accumulator_column(lane()) - visible.begin;
#pragma unroll
      for (int n = kPart * kPartRows / 8; n < (kPart + 1) * kPartRows / 8; ++n) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          if (static_cast<unsigned>(i + n * 8 + c) >= count) x[n][2 * half + c] = 0.0f;
        }
      }
    }
  }

  __device__ void keep(uint32_t (&kept)[kRows / 16], const Queries& tile) const {
    const Dropout dropout(call_, places().sequence.index, tile.head);
    const int key = places().first + first_key();
#pragma unroll
    for (int n = 0; n < kRows / 16; ++n) {
      kept[n] = dropout.kept_of_transpose(tile.row + n * 16 + accumulator_column(lane()),
                                          key / 32 * 32 + accumulator_row(lane())) >>
                (key % 32 / 16 * 8);
    }
  }
  static __device__ bool stays(const uint32_t (&kept)[kRows / 16], int n, int e) {
    return (kept[n / 2] >> (n % 2 * 4 + e) & 1) != 0;
  }

  /// Infinities and NaN in keys matter where a row does not see them: their products with zeros are NaN. This is dS K
  /// of the pairs that see each other alone, added to the warp's part of the sums.
  __device__ void add_seen_keys(float* to, const float* sums, int stage) const {
    const Places& of = places();
    const Visibility visibility(call_, of.sequence);
    const auto element = [&](uint32_t tile, uint32_t offset) {
      return Element<T>::unpack(*reinterpret_cast<const uint16_t*>(at(tile + offset))).x;
    };
    const int first_row = static_cast<int>((sums - of.grad_q) % of.sums_per_head / kHeadDim);
#pragma unroll 1
    for (int x = lane(); x < 16 * kGradColumns; x += 32) {
      const int row = warp() / 4 * Sums::kGroupRows + warp() % 4 * 16 + x % 4 / 2 * 8 + x % 128 / 16;
      const int column = warp() / 4 * Sums::kGroupColumns + x / 128 * 8 + x % 16 / 4 * 2 + x % 2;
      const int i = first_row + row;
      const Range seen = i < of.sequence.end_q ? within(visibility.keys_of(i), of.first, kKeys) : Range{0, 0};
      float sum = 0.0f;
#pragma unroll 1
      for (int j = seen.begin; j < seen.end; ++j) {
        sum += element(grad_scores(stage), ScoreLayout::offset(j, row / 8) + row % 8 * 2) *
               element(k_tile(), KeyLayout::offset(j, column / 8) + column % 8 * 2);
      }
      add_to_global(to + x, sum);
    }
  }

  /// Of a tile, asked by the block.
  __device__ bool all_finite(uint32_t tile, int bytes) const {
    uint32_t sum = 0;  // of 0 * x: 0 or NaN
#pragma unroll 2
    for (int at = thread() * kChunkBytes; at < bytes; at += kThreads * kChunkBytes) {
      uint32_t x[4];
      load_shared_128(x, tile + at);
#pragma unroll
      for (const uint32_t pair : x) sum = Element<T>::add_zero_times(sum, pair);
    }
    return !named_barrier_any(1, kThreads, (sum & 0x7FFF7FFFu) != 0);
  }

  /// The same for rows that some keys do not see: NaN in the gradients where they are seen, and, behind the scores,
  /// zeros in the tiles. Of a stage's Q and dO.
  __device__ void mark_rows(int stage, int row) {
    const int key = places().first + first_key() + accumulator_row(lane());
    const Visibility visibility(call_, places().sequence);
    Range seen[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int j = key + r * 8;
      seen[r] = j < places().sequence.end_k ? within(visibility.rows_of(j), row, kRows) : Range{0, 0};
    }
    mark_seen<T, kHeadDim, RowLayout>(grad_k_[0], at(q_tile(stage)), seen, 0, lane());
    mark_seen<T, kHeadDim, RowLayout>(grad_v_[0], at(grad_out_tile(stage)), seen, 0, lane());
  }
  __device__ void keep_finite_rows(int stage) const {
#pragma unroll 1
    for (int at = thread() * kChunkBytes; at < Shape::kStageBytes; at += kThreads * kChunkBytes) {
      uint32_t x[4];
      load_shared_128(x, q_tile(stage) + at);
      keep_finite<T>(x);
      store_shared_128(q_tile(stage) + at, {x[0], x[1], x[2], x[3]});
    }
    wgmma_fence_shared();
    __syncthreads();
  }

  /// Whether all rows of a tile see all keys of the block.
  __device__ bool all_seen(int row) const {
    bool all = true;
    for (const typename Places::GroupRows& seen : places().groups) {
      all = all && row >= seen.all.begin && row + kRows <= seen.all.end;
    }
    return all;
  }

  Gradient grad_k_, grad_v_;
};

template <class Kernel>
__global__ __launch_bounds__(Kernel::kThreads, 1) void bwd_kv_kernel(const __grid_constant__ BwdCall call,
                                                                     const __grid_constant__ BwdScratch scratch) {
  Kernel(call, scratch, dynamic_shared_memory()).run(blockIdx.x);
}

}  // namespace strobe::cuda::sm90
