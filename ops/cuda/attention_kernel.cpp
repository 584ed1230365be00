// The inner operators on CUDA, also in builds without CUDA kernels: there the library says why a flash type cannot run.
#include <torch/library.h>

#include "ops/device_call.h"
#include "ops/device_kernels.h"

namespace strobe::ops {
namespace {

Execution cuda_execution(const at::Tensor& q) {
  Execution execution;
  execution.device = Device::kCUDA;
  execution.stream = current_stream(q);
  return execution;
}

}  // namespace

TORCH_LIBRARY_IMPL(strobe, CUDA, m) { register_device_kernels<&cuda_execution>(m); }

}  // namespace strobe::ops
