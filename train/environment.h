// Where a result comes from.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace strobe::train {

/// strobe's version.
std::string version();

/// The commit that was built, with "-dirty" where tracked files differed from it; "unknown" outside a checkout.
std::string commit();

/// libtorch's version.
std::string torch_version();

/// The C++ compiler's name and version.
std::string compiler_version();

/// The processor's or the accelerator's name.
std::string device_name(at::Device device);

/// The instruction sets that our CPU kernels and ATen's use.
std::string instruction_sets();

}  // namespace strobe::train
