// What src/attention/cuda/sm90/wgmma.cuh offers, for the emulated device: products are done at once, so that a missing
// fence or wait does not show.
#pragma once

#include "src/attention/cuda/sm90/wgmma_operand.cuh"

namespace strobe::cuda {

inline void wgmma_fence_shared() {}
inline void wgmma_fence() {}
inline void wgmma_commit() {}
template <class Registers>
void wgmma_hold(Registers&) {}
template <int kPending, class... Registers>
void wgmma_wait(Registers&...) {}
template <int kRegisters>
void give_registers() {}
template <int kRegisters>
void take_registers() {}

/// What a lane brings to a product; its A is in shared memory where `fragment` is null.
struct WgmmaProduct {
  float (*c)[4];
  int tiles;
  const uint32_t* fragment;
  uint64_t a, b;
  bool transposed_a, transposed_b, accumulate;
};
template <class T>
void multiply(WgmmaProduct product);

template <class T, int kTransposedA, int kTransposedB, int kTiles>
void wgmma(float (&c)[kTiles][4], uint64_t a, uint64_t b, int accumulate) {
  multiply<T>({c, kTiles, nullptr, a, b, kTransposedA != 0, kTransposedB != 0, accumulate != 0});
}
template <class T, int kTransposedB, int kTiles>
void wgmma(float (&c)[kTiles][4], const uint32_t (&a)[4], uint64_t b, int accumulate) {
  multiply<T>({c, kTiles, a, 0, b, false, kTransposedB != 0, accumulate != 0});
}

}  // namespace strobe::cuda
