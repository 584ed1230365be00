// Launches of the short family for calls within its reach (short_config.h). No workspace.
#pragma once

#include <algorithm>

#include "src/attention/cuda/sm80/short_bwd_packed.cuh"
#include "src/attention/cuda/sm80/short_bwd_resident.cuh"
#include "src/attention/cuda/sm80/short_fwd_packed.cuh"
#include "src/attention/cuda/sm80/short_fwd_resident.cuh"

namespace strobe::cuda::sm80 {

/// What the launches ask of a device.
struct ShortDevice {
  int shared_memory;                 // of a block, with the opt-in
  int multiprocessor_shared_memory;  // of all blocks together
  int multiprocessors;
};

inline constexpr int kBlockOverhead = 1024;  // bytes of shared memory that the system takes of each block

/// Warps of a resident forward block: those that keep most warps of the device busy on average. The units of time are
/// row tiles, of which the longest-working warp of a block sets the block's time.
inline int resident_fwd_block_warps(const FwdCall& c, const ShortDevice& device, int columns) {
  const int tiles = std::max(1, round_up(c.seqlen_q, kShortTile) / kShortTile);
  const int at_a_time = resident_fwd_row_tiles(columns), most_warps = resident_fwd_warps(columns);
  const double blocks_there = static_cast<double>(work_count(c, c.num_heads_q)) / device.multiprocessors;
  const int by_memory =
      device.multiprocessor_shared_memory / (resident_fwd_bytes(c.seqlen_k, columns) + kBlockOverhead);
  int best = 1;
  double best_busy = 0;
  for (int warps = 1; warps <= most_warps; ++warps) {
    const int whole = tiles / at_a_time, rest = tiles % at_a_time;  // the rest is the tile of the next warp in turn
    const int longest = whole / warps * at_a_time + (whole % warps != 0 ? at_a_time : rest);
    const double blocks = std::min<double>(blocks_there, std::min(by_memory, most_warps / warps));
    const double busy = blocks * tiles / longest;
    if (busy > best_busy * 1.001) {
      best = warps;
      best_busy = busy;
    }
  }
  return best;
}

template <class T, int kColumns>
void short_forward(const FwdCall& c, const ShortDevice& device, void* stream) {
  const bool masked = c.window_left < kUnlimited || c.window_right < kUnlimited || c.rng_state != nullptr;
  const int64_t units = work_count(c, c.num_heads_q);
  if (in_packed_form(c.seqlen_q, c.seqlen_k)) {
    const int warps = std::max(1, round_up(c.seqlen_q, kShortTile) / kShortTile), heads = kPackedWarps / warps;
    launch("attention_forward", masked ? short_fwd_packed<T, kColumns, true> : short_fwd_packed<T, kColumns, false>,
           (units + heads - 1) / heads, heads * warps * 32, heads * packed_fwd_bytes(c.seqlen_q, c.seqlen_k, kColumns),
           stream, c, static_cast<uint32_t>(units), warps);
    return;
  }
  launch("attention_forward", masked ? short_fwd_resident<T, kColumns, true> : short_fwd_resident<T, kColumns, false>,
         units, 32 * resident_fwd_block_warps(c, device, kColumns), resident_fwd_bytes(c.seqlen_k, kColumns), stream,
         c);
}

template <class T, int kColumns>
void short_backward(const BwdCall& c, const ShortDevice& device, void* stream) {
  const bool masked = c.window_left < kUnlimited || c.window_right < kUnlimited || c.rng_state != nullptr;
  const int packed_bytes = packed_bwd_bytes(c.seqlen_q, c.seqlen_k, kColumns);
  if (in_packed_form(c.seqlen_q, c.seqlen_k) && c.group() == 1 && packed_bytes <= device.shared_memory) {
    const int64_t units = work_count(c, c.num_heads_q);
    const int warps = std::max(1, round_up(std::max(c.seqlen_q, c.seqlen_k), kShortTile) / kShortTile);
    const int heads = kPackedWarps / warps;
    launch("attention_backward", masked ? short_bwd_packed<T, kColumns, true> : short_bwd_packed<T, kColumns, false>,
           (units + heads - 1) / heads, heads * warps * 32, heads * packed_bytes, stream, c,
           static_cast<uint32_t>(units), warps);
    return;
  }
  const int row_tiles = resident_bwd_row_tiles(device.shared_memory, c.seqlen_q, c.seqlen_k, kColumns);
  launch("attention_backward", masked ? short_bwd_resident<T, kColumns, true> : short_bwd_resident<T, kColumns, false>,
         work_count(c, c.num_heads_k), 32 * resident_bwd_warps_of(c.seqlen_k, kColumns),
         resident_bwd_bytes(c.seqlen_q, c.seqlen_k, kColumns, row_tiles), stream, c, row_tiles);
}

}  // namespace strobe::cuda::sm80
