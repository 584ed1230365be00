// Launches of the short family's backward, for calls within its reach (short_config.h).
#pragma once

#include <algorithm>

#include "src/attention/cuda/sm80/short_bwd_packed.cuh"
#include "src/attention/cuda/sm80/short_bwd_resident.cuh"
#include "src/attention/cuda/sm80/short_kernels.h"

namespace strobe::cuda::sm80 {

template <class T, int kColumns>
void short_bwd(const BwdCall& c, const CudaDevice& device, void* stream) {
  const bool masked = c.window_left < kUnlimited || c.window_right < kUnlimited || c.rng_state != nullptr;
  const int64_t units = work_count(c, c.num_heads_q);
  const int bytes = packed_bwd_bytes(c.seqlen_q, c.seqlen_k, kColumns);
  if (in_packed_form(c.seqlen_q, c.seqlen_k) && bytes <= device.shared_memory) {
    const int warps = packed_warps(std::max(c.seqlen_q, c.seqlen_k));
    const int heads = packed_heads(device.shared_memory, warps, bytes);
    launch("attention_backward", masked ? short_bwd_packed<T, kColumns, true> : short_bwd_packed<T, kColumns, false>,
           (units + heads - 1) / heads, heads * warps * 32, heads * bytes, stream, c, static_cast<uint32_t>(units),
           warps, static_cast<uint32_t>(heads));
    return;
  }
  const ResidentBwdPlan plan = resident_bwd_plan(device.shared_memory, c.seqlen_q, c.seqlen_k, kColumns);
  launch("attention_backward", masked ? short_bwd_resident<T, kColumns, true> : short_bwd_resident<T, kColumns, false>,
         units, 32 * resident_bwd_warps_of(c.seqlen_k, kColumns),
         resident_bwd_bytes(c.seqlen_q, c.seqlen_k, kColumns, plan), stream, c, plan,
         static_cast<uint32_t>(device.multiprocessors));
}

}  // namespace strobe::cuda::sm80
