// What src/attention/cuda/sm90/stores.cuh offers, for the emulated device.
#pragma once

#include <cuda_runtime_api.h>

namespace strobe::cuda {

void stmatrix_x4(uint32_t address, const uint32_t (&r)[4]);

inline void add_to_global(float* to, float x) { *to += x; }
inline void add_four_to_global(float* to, const float (&x)[4]) {
  if (reinterpret_cast<std::uintptr_t>(to) % 16 != 0) throw emulator::EmulationError("red.v4: misaligned");
  for (int i = 0; i < 4; ++i) to[i] += x[i];
}

}  // namespace strobe::cuda
