// imp_flash_attn for short sequences, on sm_80 and later: blocks that hold all keys of a head. No workspace; the
// backward is one launch and always deterministic.
#pragma once

#include "src/attention/cuda/device.h"
#include "src/attention/kernels.h"

namespace strobe::cuda::sm80 {

/// Whether the family runs a call: short_config.h; in the forward, windows, causality among them, where it is faster.
bool short_reaches(const AttentionFwdParams& params, const CudaDevice& device);
bool short_reaches(const AttentionBwdParams& params, const CudaDevice& device);

/// For calls that it reaches.
const Kernels& short_kernels();

}  // namespace strobe::cuda::sm80
