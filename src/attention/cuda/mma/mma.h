// The kernels for every length on mma.sync: flash_attn and imp_flash_attn, for sm_80 and later and for sm_75.
#pragma once

#include <string>

#include "src/attention/cuda/device.h"
#include "src/attention/kernels.h"

namespace strobe::cuda {

/// Why the kernels of Arch (mma/kernels.h) do not run a call, or an empty string.
template <class Arch>
std::string mma_why_not(const AttentionFwdParams& params, const CudaDevice& device);
template <class Arch>
std::string mma_why_not(const AttentionBwdParams& params, const CudaDevice& device);

/// For calls that they run.
template <class Arch>
const Kernels& flash_kernels();
template <class Arch>
const Kernels& imp_flash_kernels();

}  // namespace strobe::cuda
