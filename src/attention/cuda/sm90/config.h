// Tuning numbers of the kernels on wgmma, measured on an H200.
#pragma once

#include "src/attention/cuda/mma/tiles.h"

namespace strobe::cuda::sm90 {

/// The forward's tile: `warpgroups` of 64 query rows each, against `keys` at a time in `stages` buffers, and the warps
/// that copy.
struct WgmmaFwdTile {
  int warpgroups, keys, stages;
  int copying_warps;
  int registers = 0, copying_registers = 0;  // of a thread, where they are shared out anew

  constexpr FwdTile rows() const { return {warpgroups * 4, 1, keys, false}; }
  constexpr int threads() const { return warpgroups * 128 + copying_warps * 32; }
};

// A multiprocessor has 65536 registers: with one warpgroup more than those of the rows, 128 or 168 for each thread, of
// which those that copy leave what they do not need.
constexpr WgmmaFwdTile fwd_tile(int head_dim, bool) {
  if (head_dim <= 64) return {3, 64, 6, 4, 160, 32};
  return {2, 128, 2, 4, 224, 56};
}

}  // namespace strobe::cuda::sm90
