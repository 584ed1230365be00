// The CUDA rows of the dispatch table.
#pragma once

#include "src/attention/kernels.h"

namespace strobe::cuda {

/// The kernels for a call on the current device. The params have passed validation. Throws strobe::Error with the
/// reason where there are none.
const Kernels& kernels(const AttentionFwdParams& params);
const Kernels& kernels(const AttentionBwdParams& params);

}  // namespace strobe::cuda
