// Products whose right operand has rows that some rows of the result do not see. Such a row may hold infinities and
// NaN, which the zeros in the left operand do not undo.
#pragma once

#include "src/attention/cuda/common/tile.cuh"

namespace strobe::cuda {

template <class T>
__device__ inline bool all_finite(const uint32_t (&b)[4]) {
  constexpr uint32_t kLow = Element<T>::kExponentMask, kHigh = kLow << 16;
  bool finite = true;
#pragma unroll
  for (const uint32_t pair : b) finite = finite && (pair & kLow) != kLow && (pair & kHigh) != kHigh;
  return finite;
}

/// c += a b of the pairs (m, k) that see each other alone, whatever b holds at the others: one k at a time.
template <class T, class Sees>
__device__ inline void multiply_add_seen(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                         const Sees& sees, int lane) {
#pragma unroll 1
  for (int k = 0; k < 16; ++k) {
    const uint32_t mine = lane % 4 != k % 8 / 2 ? 0 : k % 2 == 0 ? 0xFFFFu : 0xFFFF0000u;
    const uint32_t low = k < 8 ? mine : 0, high = k < 8 ? 0 : mine;
    const uint32_t column[4] = {a[0] & low, a[1] & low, a[2] & high, a[3] & high};
    float product[4] = {};
    Element<T>::mma_m16n8k16(product, column, b0 & low, b1 & high);
#pragma unroll
    for (int e = 0; e < 4; ++e) c[e] += sees(accumulator_row(lane) + e / 2 * 8, k) ? product[e] : 0.0f;
  }
}

/// left, right += a b for a b of two n8 tiles.
template <class T>
__device__ inline void multiply_add(float (&left)[4], float (&right)[4], const uint32_t (&a)[4],
                                    const uint32_t (&b)[4]) {
  Element<T>::mma_m16n8k16(left, a, b[0], b[1]);
  Element<T>::mma_m16n8k16(right, a, b[2], b[3]);
}

/// The same for rows of b that not all see. kCheck says that there can be rows of b that some m do not see,
/// `partial` that this b has them, sees(m, k) which they are.
template <class T, bool kCheck, class Sees>
__device__ inline void multiply_add(float (&left)[4], float (&right)[4], const uint32_t (&a)[4], const uint32_t (&b)[4],
                                    bool partial, const Sees& sees, int lane) {
  if constexpr (kCheck) {
    if (partial && __any_sync(0xFFFFFFFFu, !all_finite<T>(b))) {
      multiply_add_seen<T>(left, a, b[0], b[1], sees, lane);
      multiply_add_seen<T>(right, a, b[2], b[3], sees, lane);
      return;
    }
  }
  multiply_add<T>(left, right, a, b);
}

}  // namespace strobe::cuda
