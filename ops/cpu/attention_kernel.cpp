// The inner operators on the CPU: the library's threads are ATen's.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "ops/device_kernels.h"

namespace strobe::ops {
namespace {

Execution cpu_execution(const at::Tensor&) {
  Execution execution;
  execution.device = Device::kCPU;
  execution.num_threads = at::get_num_threads();
  execution.parallel_for = [](int64_t count, const std::function<void(int64_t, int64_t, int)>& body) {
    at::parallel_for(0, count, /*grain_size=*/1,
                     [&](int64_t begin, int64_t end) { body(begin, end, at::get_thread_num()); });
  };
  return execution;
}

}  // namespace

TORCH_LIBRARY_IMPL(strobe, CPU, m) { register_device_kernels<&cpu_execution>(m); }

}  // namespace strobe::ops
