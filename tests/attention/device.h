// The device that a test program is for: host memory and the CPU's kernels, or a CUDA device. The same tests are built
// for both; what differs is here, implemented once for each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "strobe/attention.h"
#include "tests/attention/attention_case.h"

namespace strobe::testing {

#ifdef STROBE_TEST_CUDA
inline constexpr Device kDevice = Device::kCUDA;
inline constexpr DType kDTypes[] = {DType::kFloat16, DType::kBFloat16};
#else
inline constexpr Device kDevice = Device::kCPU;
inline constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16};
#endif

// The emulated device (emulator/) has kernels of two head dims and is slow: the lattice there leaves cases out.
#ifdef STROBE_TEST_EMULATED
inline constexpr bool kEmulated = true;
#else
inline constexpr bool kEmulated = false;
#endif
inline constexpr int64_t kWidestHead = kEmulated ? 80 : 256;

/// What a test program calls: an algorithm, on the device's path or instruction set that the environment names while
/// the body runs, with or without AttentionBwdParams::deterministic.
struct KernelSetting {
  Algorithm algorithm;
  bool deterministic;
  std::string label;
};

/// For each setting of this machine that offers the case's type and head dim.
void for_each_setting(const AttentionCase& c, const std::function<void(const KernelSetting&)>& body);

/// Host memory as the kernels see it: itself, or a copy on the device with the same alignment.
class DeviceMemory {
 public:
  DeviceMemory();
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  /// Makes the bytes known; what has been written to them on the device comes back with bring_back.
  void add(const void* begin, std::size_t bytes);

  /// Of a pointer into memory that has been added; null stays null.
  template <class T>
  T* at(T* host) const {
    return static_cast<T*>(const_cast<void*>(translate(host)));
  }

  /// Waits for the device and copies all memory back. Throws where the device reports an error.
  void bring_back();

 private:
  const void* translate(const void* host) const;

  struct Blocks;
  std::unique_ptr<Blocks> blocks_;
};

}  // namespace strobe::testing
