// Tuning numbers of the kernels for every length on sm_80 and later, measured on an H200.
#pragma once

#include "src/attention/cuda/mma/tiles.h"

namespace strobe::cuda {

struct Sm80Config {
  static constexpr int kSharedMemory = 99 * 1024;        // of a block, on sm_86, sm_89 and sm_120
  static constexpr int kLargeSharedMemory = 163 * 1024;  // of sm_80; sm_90 has 227 KB
  static constexpr int kWidest = 256;                    // native head dim

  // Two row tiles a warp halve the fragments of K and V read a product; they fit the registers up to a head dim of 96
  // (at 128 ptxas spills a few bytes on one architecture or the other). Dropout takes registers: half the keys at a
  // time.
  static constexpr FwdTile fwd_tile(int head_dim, bool dropout) {
    if (head_dim <= 64) return {4, 2, dropout ? 32 : 64, true};
    if (head_dim <= 96) return {4, 2, 32, false};
    if (head_dim <= 128) return {4, 1, 64, false};
    return {4, 1, 32, false};
  }

  /// flash_attn has two tiles of queries in shared memory instead of two of keys.
  static constexpr FwdTile flash_fwd_tile(int head_dim) {
    if (head_dim <= 64) return {4, 1, 64, true};
    return {4, 1, 32, false};
  }

  // Reading fragments from shared memory is the limit: two key tiles a warp would halve those of Q and dO, but at head
  // dim 64 they spill a few bytes, which used to fit (docs/kernels.md). A head dim of 256 leaves them for one of dK and
  // dV, and shared memory for few queries. `large`: for devices with kLargeSharedMemory.
  static constexpr BwdKvTile bwd_kv_tile(int head_dim, bool large) {
    if (head_dim <= 32) return {8, 1, 64, 32, true};
    if (head_dim <= 64) return {8, 1, 64, 16};
    if (head_dim <= 80) return {8, 1, 64};
    if (head_dim <= 96) return {8, 1, large ? 64 : 32};
    if (head_dim <= 128) return large ? BwdKvTile{8, 1, 64, 16} : BwdKvTile{4, 1, 32, 16};
    return {4, 1, 16};
  }

  /// For flash_attn, whose loop over the key tiles takes registers too.
  static constexpr BwdKvTile flash_bwd_tile(int head_dim) {
    if (head_dim <= 80) return {8, 1, 64, 16};
    return head_dim <= 96 ? BwdKvTile{8, 1, 16} : BwdKvTile{4, 1, 16};
  }

  /// Whether the pass over keys has registers for dQ too.
  static constexpr bool bwd_sums_queries(int head_dim) { return head_dim <= 128; }

  static constexpr BwdQTile bwd_q_tile(int head_dim) {
    if (head_dim <= 96) return {4, 64};
    if (head_dim <= 128) return {4, 32};
    return {2, 16};
  }
};

}  // namespace strobe::cuda
