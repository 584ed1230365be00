// imp_flash_attn for sm_80 and later: FlashAttention-2 on mma.sync, for every length.
#pragma once

#include <cstdint>

#include "src/attention/kernels.h"

namespace strobe::cuda::sm80 {

/// The largest head dim that this build has kernels for.
int64_t largest_head_dim();

/// For calls with at most that.
const Kernels& imp_flash_kernels();

}  // namespace strobe::cuda::sm80
