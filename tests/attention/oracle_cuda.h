// The two formulas of src/attention/reference.h on a CUDA device, which stores the matrices of one head at a time: for
// sequences that would take the CPU minutes.
#pragma once

#include "src/attention/reference.h"

namespace strobe::testing {

/// Of a call whose tensors are in host memory. Throw where the device reports an error.
reference::Forward cuda_reference_forward(const AttentionFwdParams& params, reference::Arithmetic arithmetic);
reference::Backward cuda_reference_backward(const AttentionBwdParams& params, reference::Arithmetic arithmetic);

}  // namespace strobe::testing
