// dropout_mask on a CUDA device.
#pragma once

#include "strobe/dropout.h"

namespace strobe::cuda {

/// The params have passed strobe::dropout_mask's checks. Throws strobe::Error where the launch fails.
void dropout_mask(const DropoutMaskParams& params);

}  // namespace strobe::cuda
