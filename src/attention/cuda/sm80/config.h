// Tuning numbers of the kernels for every length on sm_80 and later, measured on an H200.
#pragma once

#include <array>

#include "src/attention/cuda/mma/tiles.h"

namespace strobe::cuda {

struct Sm80Config {
  static constexpr int kSharedMemory = 99 * 1024;  // of a block, on sm_86, sm_89 and sm_120
  // There, on sm_80 and on sm_90: the backward's pass over keys has tiles for each.
  static constexpr std::array kSharedMemoryLevels{kSharedMemory, 163 * 1024, 227 * 1024};
  static constexpr int kWidest = 256;  // native head dim

  // Two row tiles a warp halve the fragments of K and V read a product; they fit the registers up to a head dim of 128.
  // Dropout takes registers: half the keys at a time.
  static constexpr FwdTile fwd_tile(int head_dim, bool dropout) {
    if (head_dim <= 64) return {4, 2, dropout ? 32 : 64, true};
    if (head_dim <= 128) return {4, 2, 32, false};
    return {4, 1, 32, false};
  }

  /// flash_attn has two tiles of queries in shared memory instead of two of keys.
  static constexpr FwdTile flash_fwd_tile(int head_dim) {
    if (head_dim <= 64) return {4, 1, 64, true};
    return {4, 1, 32, false};
  }

  // Reading fragments from shared memory is the limit, hence 32 keys a warp where their dK and dV fit its registers: up
  // to a head dim of 64 alone, at 128 as two halves of the columns. Two blocks of 4 warps a multiprocessor are faster
  // than one of 8 (292 against 255 TFLOP/s, 16384 tokens of head dim 64), two tiles of dS than one (292 against 285,
  // at 128 265 against 252). A head dim of 256 leaves registers for one of dK and dV, and shared memory for few
  // queries.
  static constexpr BwdKvTile bwd_kv_tile(int head_dim, int shared_memory) {
    const bool large = shared_memory >= kSharedMemoryLevels[1], largest = shared_memory >= kSharedMemoryLevels[2];
    if (head_dim <= 64) return {4, 2, 64, 1, 16};
    if (head_dim <= 80) return {8, 1, 64, 1, 32, 1};
    if (head_dim <= 96) return {8, 1, large ? 64 : 32};
    if (head_dim <= 128) return large ? BwdKvTile{8, 2, 64, 2, 16, largest ? 2 : 1} : BwdKvTile{4, 1, 32, 1, 16};
    return {4, 1, 16};
  }

  /// For flash_attn, whose loop over the key tiles takes registers too.
  static constexpr BwdKvTile flash_bwd_tile(int head_dim) {
    if (head_dim <= 80) return {8, 1, 64, 1, 16, 1};
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
