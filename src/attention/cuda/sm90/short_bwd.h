// The backward of short sequences on sm_90, where sm80/short.h's leaves the card idle.
#pragma once

#include <string>

#include "src/attention/cuda/device.h"
#include "src/attention/kernels.h"

namespace strobe::cuda::sm90 {

/// Empty where the form runs the call: a backward of dense sequences in which every row sees every key, without dropout
/// and grouped heads.
std::string short_bwd_why_not(const AttentionFwdParams& params, const CudaDevice& device);
std::string short_bwd_why_not(const AttentionBwdParams& params, const CudaDevice& device);

const Kernels& short_bwd_kernels();

}  // namespace strobe::cuda::sm90
