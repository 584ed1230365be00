// The compiled kernels of the short family: one translation unit for each type, head dim and direction.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "src/attention/cuda/common/call.h"
#include "src/attention/cuda/device.h"

namespace strobe::cuda::sm80 {

/// kColumns: a native head dim, at least the call's.
template <class T, int kColumns>
void short_fwd(const FwdCall& call, const CudaDevice& device, void* stream);
template <class T, int kColumns>
void short_bwd(const BwdCall& call, const CudaDevice& device, void* stream);

}  // namespace strobe::cuda::sm80
