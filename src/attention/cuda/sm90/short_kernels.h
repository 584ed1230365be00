// The compiled kernels of sm_90: one translation unit for each type and head dim.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "src/attention/cuda/common/call.h"
#include "src/attention/cuda/device.h"

namespace strobe::cuda::sm90 {

/// kColumns: a native head dim, at least the call's.
template <class T, int kColumns>
void short_bwd_stream(const BwdCall& call, const CudaDevice& device, void* stream);

}  // namespace strobe::cuda::sm90
