#include "train/environment.h"

#include <ATen/Version.h>
#include <torch/version.h>

#include <fstream>

#include "ops/attention.h"
#include "train/commit.h"
#ifdef STROBE_CUDA
#include <cuda_runtime_api.h>
#endif

namespace strobe::train {
namespace {

std::string processor_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

}  // namespace

std::string version() { return STROBE_VERSION; }

std::string commit() { return STROBE_COMMIT; }

std::string torch_version() { return TORCH_VERSION; }

std::string compiler_version() {
#ifdef __clang__
  return "Clang " __clang_version__;
#else
  return "GCC " __VERSION__;
#endif
}

std::string device_name([[maybe_unused]] at::Device device) {
#ifdef STROBE_CUDA
  cudaDeviceProp properties{};
  if (device.is_cuda() && cudaGetDeviceProperties(&properties, device.index()) == cudaSuccess) return properties.name;
#endif
  return processor_name();
}

std::string instruction_sets() { return "strobe " + ops::cpu_instruction_set() + ", ATen " + at::get_cpu_capability(); }

}  // namespace strobe::train
