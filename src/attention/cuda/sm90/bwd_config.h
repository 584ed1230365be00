// Tuning numbers of the backward on wgmma, measured on an H200.
#pragma once

#include <cstdint>

#include "src/attention/cuda/common/call.h"

namespace strobe::cuda::sm90 {

// Of 64 keys each: dK, dV, S^T and dP^T are 192 of a lane's 255 registers at head dim 128, dQ later 32.
inline constexpr int kBwdWarpgroups = 2;

/// Queries at a time, in two buffers. At head dim 64 there are registers for 128 (404 TFLOP/s instead of 333, 16384
/// tokens), but not with dropout.
constexpr int bwd_rows(int head_dim, bool dropout) { return head_dim <= 64 && !dropout ? 128 : 64; }

/// Tiles of queries of a head: in varlen of all sequences, of which one begins where no tile of the one before can
/// stand.
inline __host__ __device__ int64_t tiles_per_head(const Call& c, int rows) {
  return c.varlen() ? c.total_q / rows + c.batch : (c.seqlen_q + rows - 1) / rows;
}
/// The fp32 sums of dQ of a call.
inline int64_t num_sums(const Call& c, int head_dim, int rows) {
  return tiles_per_head(c, rows) * rows * head_dim * c.num_heads_q * (c.varlen() ? 1 : c.batch);
}

}  // namespace strobe::cuda::sm90
