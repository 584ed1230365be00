// The products of a forward pass on mma.sync.
#pragma once

#include "src/attention/cuda/mma/arch.cuh"
#include "src/attention/cuda/mma/fwd_rows.cuh"

namespace strobe::cuda {

template <class Arch, class T, int kHeadDim, FwdTile kTile, bool kDropout>
class MmaFwdRows : public FwdRows<T, kHeadDim, kTile, kDropout, TileLayout<kHeadDim>> {
  using Base = FwdRows<T, kHeadDim, kTile, kDropout, TileLayout<kHeadDim>>;

 public:
  using Base::kRows, Base::kKeys, Base::kThreads;

 protected:
  using Base::call_, Base::shared_, Base::shared_address_, Base::out_, Base::lane, Base::warp;
  using Base::kRowTiles, Base::kWarpRows;
  using typename Base::Scores;
  using Layout = TileLayout<kHeadDim>;
  using QueryCopy = typename Arch::template TileCopy<kRows, kHeadDim, kThreads>;
  using KeyCopy = typename Arch::template TileCopy<kKeys, kHeadDim, kThreads>;

  __device__ MmaFwdRows(const FwdCall& call, unsigned char* shared) : Base(call, shared) {}

  // Tiles are given by their place in shared memory; keys from `key` on, rows from `warp_row` on.

  /// scores = Q K^T, -inf where a key is hidden.
  __device__ void score(Scores& scores, uint32_t queries, uint32_t k, int warp_row, int key, bool masked) {
    multiply_keys(scores, queries, k);
    if (masked) this->hide(scores, warp_row, key);
  }

  /// O += P V.
  __device__ void add_values(Scores& probabilities, uint32_t v, int warp_row, int key, bool masked) {
    if constexpr (kDropout) this->drop(probabilities, warp_row, key);
    const unsigned char* values = shared_ + (v - shared_address_);
    if (masked && limited(call_) && !all_finite<T, kKeys, kHeadDim>(values, lane())) {
      this->template mark_nonfinite<Layout>(values, warp_row, key);
      multiply_values<true>(probabilities, v);
    } else {
      multiply_values<false>(probabilities, v);
    }
  }

  __device__ void read_all_queries(uint32_t tile) {
#pragma unroll
    for (int d = 0; d < kHeadDim; d += 16) read_queries(queries_[d / 16], tile, d);
  }

 private:
  __device__ void multiply_keys(Scores& scores, uint32_t queries, uint32_t keys) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) scores[m][n][e] = 0.0f;
      }
    }
    const FragmentReader<kHeadDim, Fragment::kB> k(keys, lane());
    // More at once would only fill the registers with fragments read ahead.
    constexpr int kFewSteps = kRowTiles > 1 && kHeadDim > 96 ? 2 : 4;
    constexpr int kUnroll = kTile.queries_in_registers ? kHeadDim / 16 : kFewSteps;
#pragma unroll kUnroll
    for (int d = 0; d < kHeadDim; d += 16) {
      if constexpr (!kTile.queries_in_registers) read_queries(queries_[0], queries, d);
      const uint32_t(&a)[kRowTiles][4] = queries_[kTile.queries_in_registers ? d / 16 : 0];
#pragma unroll
      for (int n = 0; n < kKeys; n += 16) {
        uint32_t b[4];
        k.load(b, n, d);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          Arch::template multiply_add<T>(scores[m][n / 8], a[m], b[0], b[1]);
          Arch::template multiply_add<T>(scores[m][n / 8 + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  __device__ void read_queries(uint32_t (&a)[kRowTiles][4], uint32_t queries, int column) const {
    const FragmentReader<kHeadDim, Fragment::kA> q(queries, lane(), warp() * kWarpRows);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) q.load(a[m], m * 16, column);
  }

  /// O += P V, or the finite part of V.
  template <bool kFinitePart>
  __device__ void multiply_values(const Scores& probabilities, uint32_t values) {
    const FragmentReader<kHeadDim, Fragment::kBTrans> v(values, lane());
#pragma unroll
    for (int j = 0; j < kKeys; j += 16) {
      uint32_t a[kRowTiles][4];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        accumulators_to_a<T>(a[m], probabilities[m][j / 8], probabilities[m][j / 8 + 1]);
      }
#pragma unroll
      for (int d = 0; d < kHeadDim; d += 16) {
        uint32_t b[4];
        v.load(b, j, d);
        if constexpr (kFinitePart) keep_finite<T>(b);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          Arch::template multiply_add<T>(out_[m][d / 8], a[m], b[0], b[1]);
          Arch::template multiply_add<T>(out_[m][d / 8 + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  uint32_t queries_[kTile.queries_in_registers ? kHeadDim / 16 : 1][kRowTiles][4];
};

}  // namespace strobe::cuda
