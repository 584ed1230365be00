// The compiled kernels of this folder: one translation unit for each type and head dim.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "src/attention/cuda/common/call.h"
#include "src/attention/cuda/device.h"
#include "src/attention/cuda/mma/bwd_scratch.h"

namespace strobe::cuda::sm90 {

/// kHeadDim: a native one, at least the call's.
template <class T, int kHeadDim>
void wgmma_fwd(const FwdCall& call, const CudaDevice& device, void* stream);
/// The sums of dQ in the scratch: num_sums (bwd_config.h).
template <class T, int kHeadDim>
void wgmma_bwd(const BwdCall& call, const BwdScratch& scratch, void* stream);

}  // namespace strobe::cuda::sm90
