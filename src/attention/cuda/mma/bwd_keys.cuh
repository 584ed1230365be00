// What a warp has in the backward's pass over keys: 16 or 32 keys, whose S^T and dP^T it computes against strips of
// query rows, and their dK and dV, all in registers. At wide head dims several warps share their keys: each has some of
// the rows' scores and some of the columns of dK and dV.
#pragma once

#include <algorithm>

#include "src/attention/cuda/common/dropout.cuh"
#include "src/attention/cuda/mma/arch.cuh"
#include "src/attention/cuda/mma/bwd_block.cuh"
#include "src/attention/cuda/mma/bwd_rows.cuh"

namespace strobe::cuda {

/// How a block's shared memory is laid out.
template <int kHeadDim, BwdKvTile kTile, KvPass kPass>
struct BwdKvShape {
  static constexpr bool kWithQueries =
      kPass == KvPass::kKeysValuesQueries || kPass == KvPass::kKeysValuesQueriesInOrder;
  static constexpr int kKeys = kTile.keys(), kRows = kTile.rows, kThreads = kTile.threads();
  static constexpr int kGroups = kTile.warps / kTile.column_warps;  // warps with the same keys, side by side
  static constexpr int kKeyBytes = TileLayout<kHeadDim>::bytes(kKeys), kRowBytes = TileLayout<kHeadDim>::bytes(kRows);
  static constexpr int kStatsBytes = kRows * static_cast<int>(sizeof(RowStats));
  static constexpr int kStageBytes = 2 * kRowBytes + kStatsBytes;
  // dS of this tile and, where dQ is wanted, of the one before; P where warps share their keys.
  static constexpr int kScoreBytes = TileLayout<kRows>::bytes(kKeys);
  static constexpr int kGradScoreTiles = kWithQueries                                         ? kTile.score_tiles
                                         : kPass != KvPass::kValues && kTile.column_warps > 1 ? 1
                                                                                              : 0;
  static constexpr int kGradScoresBegin = 2 * kKeyBytes + 2 * kStageBytes;
  static constexpr int kScoresBegin = kGradScoresBegin + kGradScoreTiles * kScoreBytes;
  static constexpr int kPlacesBegin =
      kScoresBegin + (kTile.column_warps > 1 && kPass != KvPass::kKeys ? kScoreBytes : 0);
};

template <class Arch, class T, int kHeadDim, BwdKvTile kTile, KvPass kPass, bool kDropout>
class BwdKeys : public BwdBlock<Arch, T, kHeadDim, BwdKvShape<kHeadDim, kTile, kPass>, RowSums<kHeadDim>, kPass> {
 protected:
  using Base = BwdBlock<Arch, T, kHeadDim, BwdKvShape<kHeadDim, kTile, kPass>, RowSums<kHeadDim>, kPass>;
  using Base::call_, Base::shared_, Base::shared_address_, Base::Base;
  using Base::k_tile, Base::v_tile, Base::lane, Base::warp, Base::kKeys, Base::kGroups, Base::kWithKeys,
      Base::kWithValues;
  static constexpr int kKeyTiles = kTile.key_tiles, kWarpKeys = kKeyTiles * 16;
  static constexpr int kColumns = kHeadDim / kTile.column_warps;  // of dK and dV that a warp has
  // Rows whose scores are in registers at once; fewer where pairs are masked, which takes registers too.
  static constexpr int kMaskedStrip = 16,
                       kStrip = std::min(kTile.rows / kTile.column_warps, kDropout ? kTile.dropout_strip : 32);
  using Layout = TileLayout<kHeadDim>;
  static_assert(kTile.column_warps == 1 || kColumns / kChunkElements % Layout::kPhases == 0,
                "the permutation of a row's chunks crosses from one warp's to another's");
  using KeyFragments = uint32_t[kKeyTiles][4];
  template <int kStrip>
  using Scores = float[kKeyTiles][kStrip / 8][4];  // of S^T and its kin
  template <int kStrip>
  using Rounded = uint32_t[kKeyTiles][kStrip / 8][2];  // pairs of columns of the lane's two rows, an A fragment's order
  using Gradient = float[kKeyTiles][kColumns / 8][4];

  __device__ int group() const { return warp() % kGroups; }
  __device__ int part() const { return warp() / kGroups; }          // of the rows' scores and of the columns
  __device__ int first_key() const { return group() * kWarpKeys; }  // in the tile
  __device__ int first_column() const { return part() * kColumns; }

  __device__ void start() {
#pragma unroll
    for (int m = 0; m < kKeyTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if constexpr (kWithKeys) grad_k_[m][n][e] = 0.0f;
          if constexpr (kWithValues) grad_v_[m][n][e] = 0.0f;
        }
      }
    }
  }

  /// P^T and dS^T of kStrip rows from `row` on. `q`, `grad_out`: the tiles' first of these rows; `stats`: of the lane's
  /// first two of them.
  template <bool kMasked, int kStrip>
  __device__ void score(Rounded<kStrip>& p, Rounded<kStrip>& ds, const Sequence& s, uint32_t q, uint32_t grad_out,
                        const float4* stats, int head, int row, int key, float dropout_scale) const {
    Scores<kStrip> x = {};
    multiply_transposed<kStrip>(x, k_tile(), q);
    const float to_exponent = call_.softmax_scale * kLog2E;
    for_each_score<kStrip>([&](int m, int n, int e) {
      const float4 two = stats[n * 4];  // of the rows of the accumulators' two columns
      x[m][n][e] = exp2_approx(fmaf(x[m][n][e], to_exponent, e % 2 == 0 ? two.x : two.z));
    });
    if constexpr (kMasked) hide<kStrip>(x, s, row, key);  // not before: the LSE of a row may be NaN
    uint32_t kept[kStrip / 16];
    if constexpr (kDropout) keep(kept, s, head, row, key);
    if constexpr (kWithKeys) {
      Scores<kStrip> dx = {};
      multiply_transposed<kStrip>(dx, v_tile(), grad_out);
      for_each_score<kStrip>([&](int m, int n, int e) {
        const float4 two = stats[n * 4];
        if constexpr (kDropout) {
          dx[m][n][e] = stays(kept, m, n, e) ? dx[m][n][e] * dropout_scale : 0.0f;
        }
        dx[m][n][e] = x[m][n][e] * (dx[m][n][e] - (e % 2 == 0 ? two.y : two.w));
        if (kMasked && x[m][n][e] == kHidden) dx[m][n][e] = 0.0f;
      });
      round<kStrip>(ds, dx);
    }
    for_each_score<kStrip>([&](int m, int n, int e) {
      if (kMasked && x[m][n][e] == kHidden) x[m][n][e] = 0.0f;
      if constexpr (kDropout && kWithValues) x[m][n][e] = stays(kept, m, n, e) ? x[m][n][e] : 0.0f;
    });
    round<kStrip>(p, x);
  }

  /// gradient += left (P^T or dS^T: the warp's keys by kStrip rows, load(a, i) giving its fragments of the 16 rows from
  /// i on) times its columns of these rows of dO or Q.
  template <bool kMasked, int kStrip, class LoadLeft>
  __device__ void add_product(Gradient& gradient, const LoadLeft& load, const Sequence& s, uint32_t rows_tile, int row,
                              int key) const {
    if constexpr (kMasked) {
      const unsigned char* rows = shared_ + (rows_tile - shared_address_);
      if (limited(call_) && !all_finite<T, kStrip, kHeadDim>(rows, lane())) {
#pragma unroll
        for (int m = 0; m < kKeyTiles; ++m) {
          const int j = key + m * 16 + accumulator_row(lane());
          const Range seen[2] = {within(rows_of(s, j), row, kStrip), within(rows_of(s, j + 8), row, kStrip)};
          mark_seen<T, kHeadDim>(gradient[m], rows, seen, first_column(), lane());
        }
        return multiply<true, kStrip>(gradient, load, rows_tile);
      }
    }
    multiply<false, kStrip>(gradient, load, rows_tile);
  }

  /// Of what is in registers, for add_product.
  template <int kTiles>
  static __device__ auto fragments_of(const uint32_t (&left)[kKeyTiles][kTiles][2]) {
    return [&left](KeyFragments& a, int i) {
#pragma unroll
      for (int m = 0; m < kKeyTiles; ++m) {
#pragma unroll
        for (int word = 0; word < 4; ++word) a[m][word] = left[m][i / 8 + word / 2][word % 2];
      }
    };
  }

  /// Rounds the warp's part of a gradient.
  __device__ void write(const Strided& t, const Gradient& gradient, float scale, int tile_begin) const {
    Base::write(t, gradient, scale, tile_begin, first_key(), first_column());
  }

  Gradient grad_k_, grad_v_;

 private:
  static constexpr float kHidden = -1.0f;  // no probability

  /// The rows that see a key, also where it is none.
  __device__ Range rows_of(const Sequence& s, int j) const {
    return j < s.end_k ? Visibility(call_, s).rows_of(j) : Range{0, 0};
  }

  /// Which of the strip's probabilities stay, 16 rows a word.
  template <int kWords>
  __device__ void keep(uint32_t (&kept)[kWords], const Sequence& s, int head, int row, int key) const {
    const Dropout dropout(call_, s.index, head);
#pragma unroll
    for (int n = 0; n < kWords; ++n) {
      kept[n] = dropout.kept_of_transpose(row + n * 16 + accumulator_column(lane()),
                                          key / 32 * 32 + accumulator_row(lane())) >>
                (key % 32 / 16 * 8);
    }
  }
  template <int kWords>
  static __device__ bool stays(const uint32_t (&kept)[kWords], int m, int n, int e) {
    return (kept[n / 2] >> (8 * m + n % 2 * 4 + e) & 1) != 0;
  }

  template <int kStrip, class Body>
  static __device__ void for_each_score(const Body& body) {
#pragma unroll
    for (int n = 0; n < kStrip / 8; ++n) {
#pragma unroll
      for (int m = 0; m < kKeyTiles; ++m) {
#pragma unroll
        for (int e = 0; e < 4; ++e) body(m, n, e);
      }
    }
  }

  template <int kStrip>
  static __device__ void round(Rounded<kStrip>& to, const Scores<kStrip>& from) {
#pragma unroll
    for (int m = 0; m < kKeyTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kStrip / 8; ++n) {
        to[m][n][0] = Element<T>::pack(from[m][n][0], from[m][n][1]);
        to[m][n][1] = Element<T>::pack(from[m][n][2], from[m][n][3]);
      }
    }
  }

  /// scores += keys of this warp (rows of K or V) times rows of Q or dO, transposed.
  template <int kStrip>
  __device__ void multiply_transposed(Scores<kStrip>& scores, uint32_t keys_tile, uint32_t rows_tile) const {
    const FragmentReader<kHeadDim, Fragment::kA, true> keys(keys_tile, lane(), first_key());
    const FragmentReader<kHeadDim, Fragment::kB, true> rows(rows_tile, lane());
    // More at once would only fill the registers with fragments read ahead.
    constexpr int kUnroll = kStrip < 32 ? std::min(4, kHeadDim / 16) : kHeadDim / 16;
#pragma unroll kUnroll
    for (int d = 0; d < kHeadDim; d += 16) {
      KeyFragments a;
#pragma unroll
      for (int m = 0; m < kKeyTiles; ++m) keys.load(a[m], m * 16, d);
#pragma unroll
      for (int n = 0; n < kStrip; n += 16) {
        uint32_t b[4];
        rows.load(b, n, d);
#pragma unroll
        for (int m = 0; m < kKeyTiles; ++m) {
          Arch::template multiply_add<T>(scores[m][n / 8], a[m], b[0], b[1]);
          Arch::template multiply_add<T>(scores[m][n / 8 + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  template <bool kFinitePart, int kStrip, class LoadLeft>
  __device__ void multiply(Gradient& gradient, const LoadLeft& load, uint32_t rows_tile) const {
    const FragmentReader<kHeadDim, Fragment::kBTrans, true> rows(rows_tile + first_column() * sizeof(T), lane());
#pragma unroll
    for (int i = 0; i < kStrip; i += 16) {
      KeyFragments a;
      load(a, i);
#pragma unroll
      for (int d = 0; d < kColumns; d += 16) {
        uint32_t b[4];
        rows.load(b, i, d);
        if constexpr (kFinitePart) keep_finite<T>(b);
#pragma unroll
        for (int m = 0; m < kKeyTiles; ++m) {
          Arch::template multiply_add<T>(gradient[m][d / 8], a[m], b[0], b[1]);
          Arch::template multiply_add<T>(gradient[m][d / 8 + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  /// kHidden for the probabilities of what is not visible.
  template <int kStrip>
  __device__ void hide(Scores<kStrip>& x, const Sequence& s, int row, int key) const {
#pragma unroll
    for (int m = 0; m < kKeyTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Range visible = rows_of(s, key + m * 16 + half * 8 + accumulator_row(lane()));
#pragma unroll
        for (int n = 0; n < kStrip / 8; ++n) {
#pragma unroll
          for (int c = 0; c < 2; ++c) {
            const int i = row + n * 8 + accumulator_column(lane()) + c;
            if (i < visible.begin || i >= visible.end) x[m][n][2 * half + c] = kHidden;
          }
        }
      }
    }
  }
};

}  // namespace strobe::cuda
