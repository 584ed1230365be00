#include "src/attention/cuda/device.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "strobe/types.h"

namespace strobe::cuda {
namespace {

struct PathInfo {
  Path path;
  std::string_view name;
  int capability;  // the lowest that can run it, 10 * major + minor
  int shared_memory;
};

constexpr int kKilobyte = 1024;
constexpr PathInfo kPaths[] = {
    {Path::kSm75, "sm75", 75, 64 * kKilobyte},
    {Path::kSm80, "sm80", 80, 163 * kKilobyte},
    {Path::kSm86, "sm86", 80, 99 * kKilobyte},
    {Path::kSm90, "sm90", 90, 227 * kKilobyte},
};

const PathInfo& info(Path path) {
  return *std::find_if(std::begin(kPaths), std::end(kPaths), [&](const PathInfo& i) { return i.path == path; });
}

void check(cudaError_t status) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // not left for the next caller to find
  throw Error(std::string("device: expected a CUDA device, got ") + cudaGetErrorString(status));
}

int attribute(cudaDeviceAttr attribute, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}

Path own_path(int capability) {
  if (capability < 75) {
    throw Error("device: expected compute capability 7.5 or higher, got " + std::to_string(capability / 10) + "." +
                std::to_string(capability % 10));
  }
  if (capability < 80) return Path::kSm75;
  if (capability == 80 || capability == 87) return Path::kSm80;
  return capability / 10 == 9 ? Path::kSm90 : Path::kSm86;
}

Path wanted_path(int capability) {
  const char* wanted = std::getenv("STROBE_CUDA_PATH");
  const Path own = own_path(capability);
  if (wanted == nullptr || *wanted == '\0') return own;
  for (const PathInfo& path : kPaths) {
    if (path.name != wanted) continue;
    const bool runs = path.path == Path::kSm90 ? own == Path::kSm90 : capability >= path.capability;
    if (runs) return path.path;
    throw Error(std::string("STROBE_CUDA_PATH: this device cannot take ") + wanted + ", its own is " +
                std::string(name(own)));
  }
  throw Error(std::string("STROBE_CUDA_PATH: expected sm75, sm80, sm86 or sm90, got ") + wanted);
}

}  // namespace

std::string_view name(Path path) { return info(path).name; }

CudaDevice active_device() {
  int device = 0;
  check(cudaGetDevice(&device));
  const int capability =
      10 * attribute(cudaDevAttrComputeCapabilityMajor, device) + attribute(cudaDevAttrComputeCapabilityMinor, device);
  const Path path = wanted_path(capability);
  const int shared_memory =
      std::min(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device), info(path).shared_memory);
  return {path, shared_memory, attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, device),
          attribute(cudaDevAttrMultiProcessorCount, device)};
}

}  // namespace strobe::cuda
