// Stores of accumulators and sums in memory of four numbers at once. PTX ISA 9.0, "Data Movement", "Parallel
// Synchronization"; sm_90.
#pragma once

#include <cstdint>

namespace strobe::cuda {

/// Four 8 x 8 matrices of 16-bit elements, as ldmatrix_x4 reads them.
__device__ inline void stmatrix_x4(uint32_t address, const uint32_t (&r)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(r[0]), "r"(r[1]),
               "r"(r[2]), "r"(r[3])
               : "memory");
}

/// *to += x in global memory, in any order with other threads.
__device__ inline void add_to_global(float* to, float x) {
  asm volatile("red.global.add.f32 [%0], %1;" ::"l"(to), "f"(x) : "memory");
}
/// The same for four numbers, 16 bytes.
__device__ inline void add_four_to_global(float* to, const float (&x)[4]) {
  asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(x[0]), "f"(x[1]), "f"(x[2]), "f"(x[3])
               : "memory");
}

}  // namespace strobe::cuda
