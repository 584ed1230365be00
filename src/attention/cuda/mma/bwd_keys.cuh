// The keys that a warp has in the backward's pass over keys: their S^T and dP^T against strips of query rows, and their
// dK and dV, all in registers.
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
  // Rows whose scores are in registers at once.
  static constexpr int kStrip = std::min(kTile.rows, kDropout ? kTile.dropout_strip : 32);
  using Layout = TileLayout<kHeadDim>;
  static constexpr int kKeyBytes = Layout::bytes(kKeys);
  static constexpr bool kKeepsFragments = kTile.keeps_keys;
  static constexpr int kKeptFragments = kKeepsFragments ? kHeadDim / 16 : 1;
  using KeyFragments = uint32_t[kKeyTiles][4];
  using Scores = float[kKeyTiles][kStrip / 8][4];      // of S^T and its kin
  using Rounded = uint32_t[kKeyTiles][kStrip / 8][2];  // pairs of columns of the lane's two rows, an A fragment's order
  using Gradient = float[kKeyTiles][kHeadDim / 8][4];

  __device__ BwdKeys(const BwdCall& call, unsigned char* shared)
      : call_(call), shared_(shared), shared_address_(shared_address(shared)) {}

  static __device__ int thread() { return static_cast<int>(threadIdx.x); }
  static __device__ int lane() { return thread() % 32; }
  static __device__ int warp() { return thread() / 32; }

  // K and V stand at the beginning of shared memory; their tiles become staging for dK and dV.
  __device__ uint32_t k_tile() const { return shared_address_; }
  __device__ uint32_t v_tile() const { return shared_address_ + kKeyBytes; }

  /// When K and V are on their way.
  __device__ void start() {
#pragma unroll
    for (int m = 0; m < kKeyTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if constexpr (kWithKeys) grad_k_[m][n][e] = 0.0f;
          if constexpr (kWithValues) grad_v_[m][n][e] = 0.0f;
        }
      }
    }
    if constexpr (kKeepsFragments) {
      Arch::wait();
      __syncthreads();
#pragma unroll
      for (int d = 0; d < kHeadDim; d += 16) {
        read_keys(k_[d / 16], k_tile(), d);
        if constexpr (kWithKeys) read_keys(v_[d / 16], v_tile(), d);
      }
    }
  }

  /// What kStrip rows from `row` on add to dK and dV. `q`, `grad_out`: the tiles' first of these rows; `stats`: of the
  /// lane's first two of them. Calls use(dS^T) where there is one.
  template <class UseScores>
  __device__ void add_strip(uint32_t q, uint32_t grad_out, const float4* stats, int head, int row, int warp_key,
                            bool masked, const UseScores& use) {
    Rounded p;
    exponentiate(p, stats, q, row, warp_key, masked);
    uint32_t kept[kStrip / 16];
    if constexpr (kDropout) {
      const Dropout dropout(call_, batch_, head);
#pragma unroll
      for (int n = 0; n < kStrip / 16; ++n) {
        kept[n] = dropout.kept_of_transpose(row + n * 16 + accumulator_column(lane()),
                                            warp_key / 32 * 32 + accumulator_row(lane())) >>
                  (warp_key % 32 / 16 * 8);
      }
    }
    if constexpr (kWithKeys) {
      Rounded ds;
      differentiate(ds, p, kept, stats, grad_out, row, warp_key, masked);
      use(ds);
      add_product(grad_k_, ds, q, row, warp_key, masked);
    }
    if constexpr (kWithValues) {
      if constexpr (kDropout) drop(p, kept);
      add_product(grad_v_, p, grad_out, row, warp_key, masked);
    }
  }

  /// The rows that see a key, also where it is none.
  __device__ Range rows_of(int j) const {
    const Visibility visibility(call_, sequence(call_, batch_));
    return j < visibility.end_k ? visibility.rows_of(j) : Range{0, 0};
  }

  /// Rounds the warp's rows of a gradient, through its rows of a tile for stores of 16 bytes.
  __device__ void write(const Strided& t, const Gradient& gradient, float scale, int first, int tile_begin) const {
    unsigned char* staging = shared_ + tile_begin + Layout::bytes(warp() * kWarpKeys);
#pragma unroll
    for (int m = 0; m < kKeyTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int row = m * 16 + r * 8 + accumulator_row(lane());
          *reinterpret_cast<uint32_t*>(staging + Layout::offset(row, n) + lane() % 4 * 4) =
              Element<T>::pack(gradient[m][n][2 * r] * scale, gradient[m][n][2 * r + 1] * scale);
        }
      }
    }
    __syncwarp();
    const Sequence s = sequence(call_, batch_);
    T* data = s.k_rows<T>(call_, t, head_k_);
    for (int e = lane(); e < kWarpKeys * Layout::kChunks; e += 32) {
      const int row = e / Layout::kChunks, chunk = e % Layout::kChunks, j = first + warp() * kWarpKeys + row;
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
  int batch_ = 0;
  int head_k_ = 0;
  Gradient grad_k_, grad_v_;

 private:
  __device__ void read_keys(KeyFragments& a, uint32_t tile, int column) const {
    const FragmentReader<kHeadDim, Fragment::kA> keys(tile, lane(), warp() * kWarpKeys);
#pragma unroll
    for (int m = 0; m < kKeyTiles; ++m) keys.load(a[m], m * 16, column);
  }

  /// P^T of the strip.
  __device__ void exponentiate(Rounded& p, const float4* stats, uint32_t q, int row, int warp_key, bool masked) const {
    Scores x = {};
    multiply_transposed(x, k_, k_tile(), q);
    const float to_exponent = call_.softmax_scale * kLog2E;
#pragma unroll
    for (int n = 0; n < kStrip / 8; ++n) {
      const float4 two = stats[n * 4];  // of the rows of the accumulators' two columns
#pragma unroll
      for (int m = 0; m < kKeyTiles; ++m) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          x[m][n][e] = exp2_approx(fmaf(x[m][n][e], to_exponent, e % 2 == 0 ? two.x : two.z));
        }
      }
    }
    if (masked) hide(x, row, warp_key);  // after the exponential: the LSE of a row that sees other keys may be NaN
    round(p, x);
  }

  /// dS^T of the strip. P is taken as it was rounded, which leaves registers.
  __device__ void differentiate(Rounded& ds, const Rounded& p, const uint32_t (&kept)[kStrip / 16], const float4* stats,
                                uint32_t grad_out, int row, int warp_key, bool masked) const {
    Scores x = {};
    multiply_transposed(x, v_, v_tile(), grad_out);
    const float scale = kDropout ? dropout_scale(call_.dropout_threshold) : 1.0f;
#pragma unroll
    for (int n = 0; n < kStrip / 8; ++n) {
      const float4 two = stats[n * 4];
#pragma unroll
      for (int m = 0; m < kKeyTiles; ++m) {
        const float2 top = Element<T>::unpack(p[m][n][0]), bottom = Element<T>::unpack(p[m][n][1]);
        const float p_of[4] = {top.x, top.y, bottom.x, bottom.y};
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if constexpr (kDropout) x[m][n][e] = stays(kept, m, n, e) ? x[m][n][e] * scale : 0.0f;
          x[m][n][e] = p_of[e] * (x[m][n][e] - (e % 2 == 0 ? two.y : two.w));
        }
      }
    }
    if (masked) hide(x, row, warp_key);
    round(ds, x);
  }

  static __device__ void round(Rounded& to, const Scores& from) {
#pragma unroll
    for (int m = 0; m < kKeyTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kStrip / 8; ++n) {
        to[m][n][0] = Element<T>::pack(from[m][n][0], from[m][n][1]);
        to[m][n][1] = Element<T>::pack(from[m][n][2], from[m][n][3]);
      }
    }
  }

  static __device__ bool stays(const uint32_t (&kept)[kStrip / 16], int m, int n, int e) {
    return (kept[n / 2] >> (8 * m + n % 2 * 4 + e) & 1) != 0;
  }

  /// scores += keys of this warp (rows of K or V) times rows of Q or dO, transposed.
  __device__ void multiply_transposed(Scores& scores, const KeyFragments (&kept)[kKeptFragments], uint32_t keys_tile,
                                      uint32_t rows_tile) const {
    const FragmentReader<kHeadDim, Fragment::kB> rows(rows_tile, lane());
    // More at once would only fill the registers with fragments read ahead.
    constexpr int kUnroll = kKeepsFragments ? kHeadDim / 16 : kKeyTiles == 1 ? 4 : 2;
#pragma unroll kUnroll
    for (int d = 0; d < kHeadDim; d += 16) {
      KeyFragments a;
      if constexpr (kKeepsFragments) {
#pragma unroll
        for (int i = 0; i < 4 * kKeyTiles; ++i) a[i / 4][i % 4] = kept[d / 16][i / 4][i % 4];
      } else {
        read_keys(a, keys_tile, d);
      }
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

  /// gradient += left (P^T or dS^T, the warp's keys by kStrip) times rows of dO or Q.
  __device__ void add_product(Gradient& gradient, const Rounded& left, uint32_t rows_tile, int row, int warp_key,
                              bool masked) const {
    const unsigned char* rows = shared_ + (rows_tile - shared_address_);
    if (masked && limited(call_) && !all_finite<T, kStrip, kHeadDim>(rows, lane())) {
#pragma unroll
      for (int m = 0; m < kKeyTiles; ++m) {
        const int j = warp_key + m * 16 + accumulator_row(lane());
        const Range seen[2] = {within(rows_of(j), row, kStrip), within(rows_of(j + 8), row, kStrip)};
        mark_seen<T, kHeadDim>(gradient[m], rows, seen, 0, lane());
      }
      multiply<true>(gradient, left, rows_tile);
    } else {
      multiply<false>(gradient, left, rows_tile);
    }
  }

  template <bool kFinitePart>
  __device__ void multiply(Gradient& gradient, const Rounded& left, uint32_t rows_tile) const {
    const FragmentReader<kHeadDim, Fragment::kBTrans> rows(rows_tile, lane());
#pragma unroll
    for (int i = 0; i < kStrip; i += 16) {
      KeyFragments a;
#pragma unroll
      for (int m = 0; m < kKeyTiles; ++m) {
#pragma unroll
        for (int word = 0; word < 4; ++word) a[m][word] = left[m][i / 8 + word / 2][word % 2];
      }
#pragma unroll
      for (int d = 0; d < kHeadDim; d += 16) {
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

  /// Zeros for what is not visible.
  __device__ void hide(Scores& x, int row, int warp_key) const {
#pragma unroll
    for (int m = 0; m < kKeyTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Range visible = rows_of(warp_key + m * 16 + half * 8 + accumulator_row(lane()));
#pragma unroll
        for (int n = 0; n < kStrip / 8; ++n) {
#pragma unroll
          for (int c = 0; c < 2; ++c) {
            const int i = row + n * 8 + accumulator_column(lane()) + c;
            if (i < visible.begin || i >= visible.end) x[m][n][2 * half + c] = 0.0f;
          }
        }
      }
    }
  }

  static __device__ void drop(Rounded& x, const uint32_t (&kept)[kStrip / 16]) {
#pragma unroll
    for (int m = 0; m < kKeyTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kStrip / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (!stays(kept, m, n, e)) x[m][n][e / 2] &= e % 2 == 0 ? 0xFFFF0000u : 0x0000FFFFu;
        }
      }
    }
  }

  KeyFragments k_[kKeptFragments], v_[kKeptFragments];
};

}  // namespace strobe::cuda
