// The compiled kernels of this folder: one translation unit for each type, head dim and direction.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "src/attention/cuda/sm80/bwd_scratch.h"

namespace strobe::cuda::sm80 {

/// kHeadDim: a native one, at least the call's. shared_memory: what a block may have, in bytes.
template <class T, int kHeadDim>
void imp_flash_fwd(const FwdCall& call, void* stream);
template <class T, int kHeadDim>
void imp_flash_bwd(const BwdCall& call, const BwdScratch& scratch, int shared_memory, void* stream);

}  // namespace strobe::cuda::sm80
