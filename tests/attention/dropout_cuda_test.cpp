// The dropout mask of a CUDA device against the CPU's.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "strobe/dropout.h"

namespace strobe::testing {
namespace {

bool has_device() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

template <class T>
std::shared_ptr<T> device_memory(std::size_t count) {
  void* pointer = nullptr;
  if (cudaMalloc(&pointer, count * sizeof(T)) != cudaSuccess) throw std::bad_alloc();
  return {static_cast<T*>(pointer), [](T* p) { cudaFree(p); }};
}

TEST(DropoutCuda, TheDeviceDrawsTheCpusMask) {
  if (!has_device()) GTEST_SKIP() << "no CUDA device";
  const uint64_t rng_state[] = {0xFEDCBA9876543210, 0x0000000300000002};
  const auto device_state = device_memory<uint64_t>(2);
  ASSERT_EQ(cudaMemcpy(device_state.get(), rng_state, sizeof(rng_state), cudaMemcpyHostToDevice), cudaSuccess);
  DropoutMaskParams p;
  p.head_begin = 70000;
  p.num_heads = 3;
  p.seqlen_q = 131;
  p.seqlen_k = 517;
  p.dropout_p = 0.3;
  const std::size_t count = p.num_heads * p.seqlen_q * p.seqlen_k;
  std::vector<float> expected(count), found(count);
  p.rng_state = rng_state;
  p.mask = expected.data();
  dropout_mask(p);

  const auto device_mask = device_memory<float>(count);
  p.device = Device::kCUDA;
  p.rng_state = device_state.get();
  p.mask = device_mask.get();
  dropout_mask(p);
  ASSERT_EQ(cudaMemcpy(found.data(), p.mask, count * sizeof(float), cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(found, expected);
}

}  // namespace
}  // namespace strobe::testing
