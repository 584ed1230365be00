// What a warp has in the backward's pass over keys: 16 or 32 keys, whose S^T and dP^T it computes against strips of
// query rows, and their dK and dV, all in registers. At wide head dims several warps share their keys: each has some of
// the rows' scores and some of the columns of dK and dV.
#pragma once

#include <algorithm>

#include "src/attention/cuda/common/dropout.cuh"
#include "src/attention/cuda/common/geometry.cuh"
#include "src/attention/cuda/mma/arch.cuh"
#include "src/attention/cuda/mma/nonfinite.cuh"

namespace strobe::cuda {

template <class Arch, class T, int kHeadDim, BwdKvTile kTile, bool kWithKeys, bool kWithValues, bool kDropout>
class BwdKeys {
 protected:
  static constexpr int kKeyTiles = kTile.key_tiles, kWarpKeys = kKeyTiles * 16, kKeys = kTile.keys();
  static constexpr int kGroups = kTile.warps / kTile.column_warps;  // warps with the same keys, side by side
  static constexpr int kColumns = kHeadDim / kTile.column_warps;    // of dK and dV that a warp has
  // Rows whose scores are in registers at once; fewer where pairs are masked, which takes registers too.
  static constexpr int kMaskedStrip = 16,
                       kStrip = std::min(kTile.rows / kTile.column_warps, kDropout ? kTile.dropout_strip : 32);
  using Layout = TileLayout<kHeadDim>;
  static_assert(kTile.column_warps == 1 || kColumns / kChunkElements % Layout::kPhases == 0,
                "the permutation of a row's chunks crosses from one warp's to another's");
  static constexpr int kKeyBytes = Layout::bytes(kKeys);
  using KeyFragments = uint32_t[kKeyTiles][4];
  template <int kStrip>
  using Scores = float[kKeyTiles][kStrip / 8][4];  // of S^T and its kin
  template <int kStrip>
  using Rounded = uint32_t[kKeyTiles][kStrip / 8][2];  // pairs of columns of the lane's two rows, an A fragment's order
  using Gradient = float[kKeyTiles][kColumns / 8][4];

  __device__ BwdKeys(const BwdCall& call, unsigned char* shared)
      : call_(call), shared_(shared), shared_address_(shared_address(shared)) {}

  __device__ int thread() const { return thread_; }
  __device__ int lane() const { return thread() % 32; }
  __device__ int warp() const { return thread() / 32; }
  __device__ int group() const { return warp() % kGroups; }
  __device__ int part() const { return warp() / kGroups; }          // of the rows' scores and of the columns
  __device__ int first_key() const { return group() * kWarpKeys; }  // in the tile
  __device__ int first_column() const { return part() * kColumns; }
  /// What follows from the thread's number is computed anew from here on: the registers that would keep it are rare.
  __device__ void forget() { thread_ = fresh_thread_index(); }

  // K and V stand at the beginning of shared memory; their tiles become staging for dK and dV.
  __device__ uint32_t k_tile() const { return shared_address_; }
  __device__ uint32_t v_tile() const { return shared_address_ + kKeyBytes; }

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

  /// Rounds the warp's part of a gradient, through its place in a tile for stores of 16 bytes.
  __device__ void write(const Strided& t, const Gradient& gradient, float scale, const Sequence& s, int head_k,
                        int first, int tile_begin) const {
    unsigned char* staging = shared_ + tile_begin + Layout::bytes(first_key());
    const int first_chunk = first_column() / kChunkElements;
#pragma unroll
    for (int m = 0; m < kKeyTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int row = m * 16 + r * 8 + accumulator_row(lane());
          *reinterpret_cast<uint32_t*>(staging + Layout::offset(row, first_chunk + n) + lane() % 4 * 4) =
              Element<T>::pack(gradient[m][n][2 * r] * scale, gradient[m][n][2 * r + 1] * scale);
        }
      }
    }
    __syncwarp();
    constexpr int kChunks = kColumns / kChunkElements;
    T* data = s.k_rows<T>(call_, t, head_k);
    for (int e = lane(); e < kWarpKeys * kChunks; e += 32) {
      const int row = e / kChunks, chunk = first_chunk + e % kChunks, j = first + first_key() + row;
      if (j < s.num_k && chunk * kChunkElements < call_.head_dim) {
        // A hidden key's is 0 times the rows, among which there may be infinities and NaN.
        *reinterpret_cast<uint4*>(data + static_cast<int64_t>(j) * t.row_stride + chunk * kChunkElements) =
            j < s.end_k ? *reinterpret_cast<const uint4*>(staging + Layout::offset(row, chunk)) : uint4{0, 0, 0, 0};
      }
    }
  }

  const BwdCall& call_;
  unsigned char* shared_;
  uint32_t shared_address_;
  Gradient grad_k_, grad_v_;

 private:
  static constexpr float kHidden = -1.0f;  // no probability

  int thread_ = static_cast<int>(threadIdx.x);

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
