// The tiles of sm_75: what fits 64 KB of shared memory, with room in the registers for the tile on its way there. Not
// tuned: no Turing card has run them.
#pragma once

#include <array>

#include "src/attention/cuda/mma/tiles.h"

namespace strobe::cuda {

struct Sm75Config {
  static constexpr int kSharedMemory = 64 * 1024;
  static constexpr std::array kSharedMemoryLevels{kSharedMemory};
  static constexpr int kWidest = 128;  // native head dim; at 256 there is no room for a second warp in the backward

  static constexpr FwdTile fwd_tile(int head_dim, bool) { return {4, 1, 32, head_dim <= 64}; }
  static constexpr FwdTile flash_fwd_tile(int head_dim) { return {4, 1, 32, head_dim <= 64}; }
  // dK and dV leave the registers of few rows' tiles.
  static constexpr BwdKvTile bwd_kv_tile(int head_dim, int) { return {4, 1, head_dim <= 64 ? 32 : 16}; }
  static constexpr BwdKvTile flash_bwd_tile(int) { return {4, 1, 16}; }
  static constexpr bool bwd_sums_queries(int) { return true; }
  static constexpr BwdQTile bwd_q_tile(int head_dim) { return {4, head_dim <= 96 ? 32 : 16}; }
};

}  // namespace strobe::cuda
