#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <stdexcept>

#include "src/attention/cuda/device.h"
#include "tests/attention/device.h"

namespace strobe::testing {
namespace {

constexpr std::size_t kAlignment = 256;  // the device's address and the host's agree in its remainder

void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(status));
}

/// Skips every test of the program where there is no device.
class NeedsDevice : public ::testing::Environment {
 public:
  void SetUp() override {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) GTEST_SKIP() << "no CUDA device";
  }
};

[[maybe_unused]] const auto* const kNeedsDevice = ::testing::AddGlobalTestEnvironment(new NeedsDevice);

/// The settings of the path that the environment names or the device has.
void for_each_setting_of_path(const AttentionCase& c, const std::function<void(const KernelSetting&)>& body) {
  const cuda::Path path = cuda::active_device().path;
  const std::string name(cuda::name(path));
  if (path == cuda::Path::kSm75 && (c.dtype != DType::kFloat16 || c.head_dim > 128)) return;
  if (c.head_dim <= 128) body({Algorithm::kFlashAttn, false, name + " flash_attn"});
  body({Algorithm::kImpFlashAttn, true, name + " imp_flash_attn deterministic"});
  if (!kEmulated || path == cuda::Path::kSm75) body({Algorithm::kImpFlashAttn, false, name + " imp_flash_attn"});
  if (path == cuda::Path::kSm75) return;  // has no short-sequence kernels
  ASSERT_EQ(setenv("STROBE_CUDA_FAMILY", "general", 1), 0);
  body({Algorithm::kImpFlashAttn, true, name + " imp_flash_attn general deterministic"});
  body({Algorithm::kImpFlashAttn, false, name + " imp_flash_attn general"});
  unsetenv("STROBE_CUDA_FAMILY");
}

}  // namespace

void for_each_setting(const AttentionCase& c, const std::function<void(const KernelSetting&)>& body) {
  for_each_setting_of_path(c, body);
  if (!kEmulated || std::getenv("STROBE_CUDA_PATH") != nullptr) return;
  ASSERT_EQ(setenv("STROBE_CUDA_PATH", "sm75", 1), 0);
  for_each_setting_of_path(c, body);
  unsetenv("STROBE_CUDA_PATH");
}

struct DeviceMemory::Blocks {
  struct Block {
    std::size_t bytes;
    void* allocation;
    std::byte* device;
  };
  std::map<const std::byte*, Block> by_host_address;
};

DeviceMemory::DeviceMemory() : blocks_(std::make_unique<Blocks>()) {}

DeviceMemory::~DeviceMemory() {
  for (const auto& [host, block] : blocks_->by_host_address) cudaFree(block.allocation);
}

void DeviceMemory::add(const void* begin, std::size_t bytes) {
  const auto* host = static_cast<const std::byte*>(begin);
  if (bytes == 0 || blocks_->by_host_address.contains(host)) return;
  Blocks::Block block{bytes, nullptr, nullptr};
  check(cudaMalloc(&block.allocation, bytes + kAlignment), "cudaMalloc");
  block.device = static_cast<std::byte*>(block.allocation) + reinterpret_cast<std::uintptr_t>(host) % kAlignment;
  blocks_->by_host_address.emplace(host, block);
  check(cudaMemcpy(block.device, host, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
}

const void* DeviceMemory::translate(const void* pointer) const {
  if (pointer == nullptr) return nullptr;
  const auto* host = static_cast<const std::byte*>(pointer);
  auto after = blocks_->by_host_address.upper_bound(host);
  if (after == blocks_->by_host_address.begin()) throw std::logic_error("DeviceMemory: a pointer that was not added");
  const auto& [begin, block] = *std::prev(after);
  if (host - begin > static_cast<std::ptrdiff_t>(block.bytes)) throw std::logic_error("DeviceMemory: not added");
  return block.device + (host - begin);
}

void DeviceMemory::bring_back() {
  check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  for (const auto& [host, block] : blocks_->by_host_address) {
    auto* to = const_cast<std::byte*>(host);
    check(cudaMemcpy(to, block.device, block.bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
  }
}

}  // namespace strobe::testing
