// Tuning numbers of the backward on wgmma, measured on an H200.
#pragma once

#include <cstdint>

#include "src/attention/cuda/common/call.h"

namespace strobe::cuda::sm90 {

inline constexpr int kBwdWarpgroups = 2;  // of 64 keys each

/// Queries at a time, in two buffers.
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
