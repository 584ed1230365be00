// The device that a call runs on: which kernels it can run and what it offers them.
#pragma once

#include <string_view>

namespace strobe::cuda {

/// Who may run a family of kernels, and with how much shared memory a block.
enum class Path {
  kSm75,  // Turing, 64 KB
  kSm80,  // 8.0 and 8.7, 163 KB
  kSm86,  // 8.6, 8.9 and the compute capabilities from 10 on, which have at least the 99 KB of these
  kSm90,  // 9.0, 227 KB
};
std::string_view name(Path path);

struct CudaDevice {
  Path path;
  int shared_memory;                 // of a block, with the opt-in
  int multiprocessor_shared_memory;  // of all blocks together
  int multiprocessors;
};

/// The current device, on the path that STROBE_CUDA_PATH names (sm75, sm80, sm86 or sm90) or else on its own. Throws
/// strobe::Error where there is no device or it cannot take that path.
CudaDevice active_device();

}  // namespace strobe::cuda
