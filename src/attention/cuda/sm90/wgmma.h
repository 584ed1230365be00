// The kernels on wgmma, for sm_90 alone: the native head dims 64 and 128.
#pragma once

#include <string>

#include "src/attention/cuda/device.h"
#include "src/attention/kernels.h"

namespace strobe::cuda::sm90 {

/// Why they do not run a call, or an empty string.
std::string wgmma_why_not(const AttentionFwdParams& params, const CudaDevice& device);
std::string wgmma_why_not(const AttentionBwdParams& params, const CudaDevice& device);

/// For calls that they run.
const Kernels& wgmma_kernels();

}  // namespace strobe::cuda::sm90
