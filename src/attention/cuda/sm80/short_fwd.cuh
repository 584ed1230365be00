// Launches of the short family's forward, for calls within its reach (short_config.h).
#pragma once

#include <algorithm>

#include "src/attention/cuda/sm80/short_fwd_packed.cuh"
#include "src/attention/cuda/sm80/short_fwd_resident.cuh"
#include "src/attention/cuda/sm80/short_kernels.h"

namespace strobe::cuda::sm80 {

inline constexpr int kBlockOverhead = 1024;  // bytes of shared memory that the system takes of each block

/// A resident forward launch: the warps of a block, and how many blocks run at the same time.
struct ResidentFwdPlan {
  int tiles, warps;
  int64_t blocks;
};

/// The plan that keeps most warps of the device busy on average: the warp of a block with most row tiles sets its time.
inline ResidentFwdPlan resident_fwd_plan(const FwdCall& c, const CudaDevice& device, int columns, bool masked) {
  const int row_tiles = std::max(1, round_up(c.seqlen_q, kShortTile) / kShortTile);
  const int tiles = resident_fwd_tiles(columns, masked);
  const double blocks_there = static_cast<double>(work_count(c, c.num_heads_q)) / device.multiprocessors;
  ResidentFwdPlan best{tiles, 1, device.multiprocessors};
  double best_busy = 0;
  for (int warps = 1; warps <= resident_fwd_warps(columns); ++warps) {
    const int bytes = resident_fwd_bytes(c.seqlen_k, columns, tiles, warps);
    if (bytes > device.shared_memory) break;
    const int blocks =
        std::min(device.multiprocessor_shared_memory / (bytes + kBlockOverhead), resident_fwd_warps(columns) / warps);
    const int longest = (row_tiles + warps - 1) / warps;
    const double busy = std::min<double>(blocks_there, blocks) * row_tiles / longest;
    if (busy > best_busy * 1.001) {
      best.warps = warps;
      best.blocks = static_cast<int64_t>(blocks) * device.multiprocessors;
      best_busy = busy;
    }
  }
  return best;
}

template <class T, int kColumns>
auto resident_fwd_kernel(int tiles, bool masked) -> void (*)(FwdCall, uint32_t) {
  constexpr int kMost = resident_fwd_most_tiles(kColumns);
  if (masked) return short_fwd_resident<T, kColumns, 4, true>;
  if constexpr (kMost > 4) {
    if (tiles == kMost) return short_fwd_resident<T, kColumns, kMost, false>;
  }
  return short_fwd_resident<T, kColumns, 4, false>;
}

template <class T, int kColumns>
void short_fwd(const FwdCall& c, const CudaDevice& device, void* stream) {
  const bool masked = c.window_left < kUnlimited || c.window_right < kUnlimited || c.rng_state != nullptr;
  const int64_t units = work_count(c, c.num_heads_q);
  if (in_packed_form(c.seqlen_q, c.seqlen_k)) {
    const int bytes = packed_fwd_bytes(c.seqlen_q, c.seqlen_k, kColumns), warps = packed_warps(c.seqlen_q);
    const int heads = packed_heads(device.shared_memory, warps, bytes);
    launch("attention_forward", masked ? short_fwd_packed<T, kColumns, true> : short_fwd_packed<T, kColumns, false>,
           (units + heads - 1) / heads, heads * warps * 32, heads * bytes, stream, c, static_cast<uint32_t>(units),
           warps, static_cast<uint32_t>(heads));
    return;
  }
  const ResidentFwdPlan plan = resident_fwd_plan(c, device, kColumns, masked);
  launch("attention_forward", resident_fwd_kernel<T, kColumns>(plan.tiles, masked), units, 32 * plan.warps,
         resident_fwd_bytes(c.seqlen_k, kColumns, plan.tiles, plan.warps), stream, c,
         static_cast<uint32_t>(plan.blocks));
}

}  // namespace strobe::cuda::sm80
