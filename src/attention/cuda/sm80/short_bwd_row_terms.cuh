// What the resident backward needs of every row before its loop.
#pragma once

#include "src/attention/cuda/sm80/short_bwd_packed.cuh"

namespace strobe::cuda::sm80 {

/// Of one row, for the loop: base of the exponent, and delta - dLSE.
struct RowTerms {
  float base, delta;
};

/// Makes the terms of all rows, four lanes a row. O is asked for before the wait for the tiles, up to kBatch rows a
/// lane, dO is read from its tile.
template <class T, int kColumns, int kBatch>
class RowTermMaker {
  static constexpr int kLaneChunks = (kColumns / kChunkElements + 3) / 4;

 public:
  __device__ RowTermMaker(const BwdCall& c, const Sequence& s, int head)
      : c_(c),
        end_(s.end_q),
        out_(s.q_rows<T>(c, c.out, head)),
        lse_(c.softmax_lse + s.lse_offset(c, head)),
        lse_gradient_(c.grad_softmax_lse == nullptr ? nullptr : c.grad_softmax_lse + s.lse_offset(c, head)) {
    load(static_cast<int>(threadIdx.x) / 4);
  }

  /// Whether this thread's rows of Q and dO can hold neither infinities nor NaN, which would have reached the LSE and
  /// delta.
  __device__ bool write(RowTerms* terms, uint32_t do_tile, int rows) {
    float sum = 0.0f;  // of 0 * x: 0 or NaN
    for (int row = static_cast<int>(threadIdx.x) / 4; row < rows; row += kBatch * step()) {
      if (row >= kBatch * step()) load(row);
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int at = row + i * step();
        if (at >= rows) break;  // for the whole warp: rows and a warp's rows are multiples of 8
        const float delta = quad_sum(product(i, do_tile, at));
        sum += 0.0f * row_lse_[i] + 0.0f * delta;  // of rows beyond the end both are 0
        if (threadIdx.x % 4 == 0) {
          terms[at] = at < end_ ? RowTerms{exponent_base(row_lse_[i]), delta - row_lse_gradient_[i]}
                                : RowTerms{kInfinity, 0.0f};
        }
      }
    }
    return sum == 0.0f;
  }

 private:
  __device__ static int step() { return static_cast<int>(blockDim.x) / 4; }
  __device__ static int chunk(int j) { return static_cast<int>(threadIdx.x) % 4 + 4 * j; }

  __device__ void load(int row) {
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int at = row + i * step();
#pragma unroll
      for (int j = 0; j < kLaneChunks; ++j) {
        const bool valid = at < end_ && chunk(j) * kChunkElements < c_.head_dim;
        row_out_[i][j] = valid ? __ldg(reinterpret_cast<const uint4*>(out_ + at * c_.out.row_stride) + chunk(j))
                               : make_uint4(0, 0, 0, 0);
      }
      row_lse_[i] = at < end_ ? __ldg(lse_ + at) : 0.0f;
      row_lse_gradient_[i] = at < end_ && lse_gradient_ != nullptr ? __ldg(lse_gradient_ + at) : 0.0f;
    }
  }

  __device__ float product(int i, uint32_t do_tile, int row) const {
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < kLaneChunks; ++j) {
      if (chunk(j) >= TileLayout<kColumns>::kChunks) break;
      uint32_t g[4];
      load_shared_128(g, do_tile + TileLayout<kColumns>::offset(row, chunk(j)));
      const uint32_t o[4] = {row_out_[i][j].x, row_out_[i][j].y, row_out_[i][j].z, row_out_[i][j].w};
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const float2 x = Element<T>::unpack(o[w]), y = Element<T>::unpack(g[w]);
        sum += x.x * y.x + x.y * y.y;
      }
    }
    return sum;
  }

  const BwdCall& c_;
  int end_;
  const T* out_;
  const float *lse_, *lse_gradient_;
  uint4 row_out_[kBatch][kLaneChunks];
  float row_lse_[kBatch], row_lse_gradient_[kBatch];
};

}  // namespace strobe::cuda::sm80
