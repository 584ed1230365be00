// Tuning numbers of the kernels on wgmma, measured on an H200.
#pragma once

#include "src/attention/cuda/mma/tiles.h"

namespace strobe::cuda::sm90 {

/// The forward's tile: `warpgroups` of 64 query rows each, against `keys` at a time, and the warps that copy.
struct WgmmaFwdTile {
  int warpgroups, keys;
  int k_stages, v_stages;            // buffers
  int registers, copying_registers;  // of a thread

  constexpr FwdTile rows() const { return {warpgroups * 4, 1, keys, false}; }
  constexpr int threads() const { return (warpgroups + 1) * 128; }
};

// A multiprocessor has 65536 registers: with one warpgroup more than those of the rows, 128 or 168 for each thread, of
// which those that copy leave what they do not need.
constexpr WgmmaFwdTile fwd_tile(int head_dim, bool) {
  if (head_dim <= 64) return {3, 96, 5, 5, 160, 32};
  return {2, 128, 3, 2, 224, 56};
}

}  // namespace strobe::cuda::sm90
