#define USE_C10D_NCCL
#include "train/distributed/nccl_backend.h"

#include <c10/cuda/CUDAFunctions.h>

#include <cstdlib>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#include <utility>

namespace strobe::train {

c10::intrusive_ptr<c10d::Backend> make_nccl_backend(c10::intrusive_ptr<c10d::Store> store, int rank, int size,
                                                    at::Device device) {
  // On an error NCCL's own watchdog would end the process before it can say which rank was lost; 2 ends only what
  // hangs.
  ::setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2", /*overwrite=*/0);
  c10::cuda::set_device(device.index());
  auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(std::move(store), rank, size,
                                                             c10d::ProcessGroupNCCL::Options::create());
  backend->setBoundDeviceId(device);
  backend->eagerConnectSingleDevice(device);
  return backend;
}

}  // namespace strobe::train
