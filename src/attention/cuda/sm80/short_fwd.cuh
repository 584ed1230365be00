// Launches of the short family's forward, for calls within its reach (short_config.h).
#pragma once

#include <algorithm>

#include "src/attention/cuda/sm80/short_fwd_ring.cuh"
#include "src/attention/cuda/sm80/short_kernels.h"

namespace strobe::cuda::sm80 {

template <class T, int kColumns>
void short_fwd(const FwdCall& c, const CudaDevice& device, void* stream) {
  const bool masked = c.window_left < kUnlimited || c.window_right < kUnlimited || c.rng_state != nullptr;
  const int64_t units = work_count(c, c.num_heads_q);
  int slots = fwd_slots(device.shared_memory, c.seqlen_k, kColumns);
  const int copiers = fwd_copiers(c.seqlen_q, c.seqlen_k, slots, kColumns);
  slots -= slots % copiers;
  const RingPlan plan{static_cast<uint32_t>(units),   std::max(1, round_up(c.seqlen_q, kShortTile) / kShortTile),
                      fwd_chunks(c.seqlen_q),         fwd_chunks(c.seqlen_k),
                      static_cast<uint32_t>(copiers), static_cast<uint32_t>(slots)};
  launch("attention_forward", masked ? short_fwd_ring<T, kColumns, true> : short_fwd_ring<T, kColumns, false>,
         std::min<int64_t>(units, device.multiprocessors), 32 * fwd_warps(kColumns, masked), fwd_bytes(kColumns, slots),
         stream, c, plan);
}

}  // namespace strobe::cuda::sm80
