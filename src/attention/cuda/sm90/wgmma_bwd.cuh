// The backward on wgmma: what the keys need of the rows, the keys, which add to the sums of dQ, and dQ from them.
#pragma once

#include "src/attention/cuda/mma/bwd_rows.cuh"
#include "src/attention/cuda/sm90/bwd_kv.cuh"
#include "src/attention/cuda/sm90/kernels.h"

namespace strobe::cuda::sm90 {

template <class T, int kHeadDim, bool kDropout>
void wgmma_bwd_main(const BwdCall& call, const BwdScratch& scratch, void* stream) {
  constexpr const char* kOperation = "attention_backward";
  using Kernel = BwdKv<T, kHeadDim, kDropout>;
  using Sums = TileSums<kHeadDim, bwd_rows(kHeadDim, kDropout)>;
  const int64_t blocks = RowPlace::num_blocks(call);
  launch(kOperation, bwd_stats_kernel<T, kHeadDim, Sums>, blocks, kRowThreads, 0, stream, call, scratch);
  launch(kOperation, bwd_kv_kernel<Kernel>, Kernel::num_blocks(call), Kernel::kThreads, Kernel::kSharedBytes, stream,
         call, scratch);
  launch(kOperation, bwd_grad_q_kernel<T, Sums>, blocks, kRowThreads, 0, stream, call, scratch);
}

template <class T, int kHeadDim>
void wgmma_bwd(const BwdCall& call, const BwdScratch& scratch, void* stream) {
  call.rng_state == nullptr ? wgmma_bwd_main<T, kHeadDim, false>(call, scratch, stream)
                            : wgmma_bwd_main<T, kHeadDim, true>(call, scratch, stream);
}

}  // namespace strobe::cuda::sm90
