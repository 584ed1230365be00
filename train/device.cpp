#include "train/device.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <new>
#include <string>

namespace strobe::train {
namespace {

at::Tensor generator_state(at::Device device) {
  at::Generator generator = at::globalContext().defaultGenerator(device);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  return generator.get_state();
}

void set_generator_state(at::Device device, const at::Tensor& state) {
  at::Generator generator = at::globalContext().defaultGenerator(device);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_state(state);
}

/// The aggregate over the allocator's small and large blocks.
constexpr auto kAggregate = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);

}  // namespace

void seed_generators(at::Device device, uint64_t seed) {
  for (const at::Device each : {at::Device(at::kCPU), device}) {
    at::Generator generator = at::globalContext().defaultGenerator(each);
    const std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_current_seed(seed);
  }
}

Dict random_state(at::Device device) {
  Dict state;
  state["cpu"] = generator_state(at::kCPU);
  if (!device.is_cpu()) state["device"] = generator_state(device);
  return state;
}

void set_random_state(at::Device device, const Dict& state) {
  set_generator_state(at::kCPU, state.at("cpu").as_tensor());
  const Value* of_device = state.find("device");
  if (!device.is_cpu() && of_device != nullptr) set_generator_state(device, of_device->as_tensor());
}

void require_determinism(at::Device device) {
  // cuBLAS is deterministic only with a workspace of fixed size, and reads this when its first handle is made.
  if (device.is_cuda()) ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  // It would also fill every new tensor with NaN, which only costs time: our code reads nothing that it has not
  // written.
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

void tune_convolutions() { at::globalContext().setBenchmarkCuDNN(true); }

void synchronize(at::Device device) {
  if (!device.is_cpu()) c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

int64_t peak_memory(at::Device device) {
  if (!device.is_cpu()) {
    return c10::getDeviceAllocator(device.type())->getDeviceStats(device.index()).allocated_bytes[kAggregate].peak;
  }
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

void reset_peak_memory(at::Device device) {
  if (!device.is_cpu()) c10::getDeviceAllocator(device.type())->resetPeakStats(device.index());
}

bool is_out_of_memory(const std::exception& error) {
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr) return true;
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) return true;
  const auto* from_aten = dynamic_cast<const c10::Error*>(&error);
  if (from_aten == nullptr) return false;
  // The CPU's allocator and CUDA's libraries throw the general class.
  constexpr const char* kTexts[] = {"DefaultCPUAllocator: ", "out of memory", "ALLOC_FAILED"};
  return std::any_of(std::begin(kTexts), std::end(kTexts),
                     [&](const char* text) { return from_aten->msg().find(text) != std::string::npos; });
}

void release_cached_memory(at::Device device) {
  if (!device.is_cpu()) c10::getDeviceAllocator(device.type())->emptyCache();
}

}  // namespace strobe::train
