// Launches of kernels on the emulated device.
#pragma once

#include <exception>
#include <tuple>

#include "cuda_runtime_api.h"

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x = 1) : x(x) {}
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int bytes) {
  return bytes <= strobe::emulator::kMostSharedMemory ? cudaSuccess : cudaErrorInvalidValue;
}

template <class... Parameters, class... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), const Args&... args) {
  const std::tuple<Parameters...> parameters(args...);
  strobe::emulator::run_grid(config->gridDim.x, static_cast<int>(config->blockDim.x),
                             static_cast<int>(config->dynamicSmemBytes), [&] { std::apply(kernel, parameters); });
  return cudaSuccess;
}
