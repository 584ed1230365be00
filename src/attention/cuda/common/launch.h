// Launches of kernels, with the runtime's errors as strobe::Error.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "strobe/types.h"

namespace strobe::cuda {

inline constexpr int64_t kMostBlocks = std::numeric_limits<int32_t>::max();  // of grid.x
inline constexpr int kPlainSharedMemory = 48 * 1024;                         // what a kernel gets without asking

inline void check(cudaError_t status, std::string_view operation, std::string_view call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // not left for the next caller to find
  throw Error(std::string(operation) + ": " + std::string(call) + ": expected success, got " +
              cudaGetErrorString(status));
}

/// Starts kernel(args...) on a one-dimensional grid; no blocks, no launch.
template <class... Parameters, class... Args>
void launch(std::string_view operation, void (*kernel)(Parameters...), int64_t blocks, int threads, int shared_memory,
            void* stream, const Args&... args) {
  if (blocks == 0) return;
  if (shared_memory > kPlainSharedMemory) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_memory), operation,
          "cudaFuncSetAttribute");
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shared_memory);
  config.stream = static_cast<cudaStream_t>(stream);
  check(cudaLaunchKernelEx(&config, kernel, args...), operation, "launch");
}

}  // namespace strobe::cuda
