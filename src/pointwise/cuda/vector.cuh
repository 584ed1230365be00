// Eight 16-bit elements at once, computed with in float32.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "strobe/pointwise.h"

namespace strobe::pointwise {

constexpr int kVector = static_cast<int>(kPointwiseVector);

__device__ inline float2 to_floats(__half2 pair) { return __half22float2(pair); }
__device__ inline float2 to_floats(__nv_bfloat162 pair) { return __bfloat1622float2(pair); }
__device__ inline void from_floats(float2 pair, __half2& out) { out = __float22half2_rn(pair); }
__device__ inline void from_floats(float2 pair, __nv_bfloat162& out) { out = __float22bfloat162_rn(pair); }

template <class T>
struct PairOf;
template <>
struct PairOf<__half> {
  using Type = __half2;
};
template <>
struct PairOf<__nv_bfloat16> {
  using Type = __nv_bfloat162;
};

/// As it lies in memory.
template <class T>
struct alignas(16) Packed {
  typename PairOf<T>::Type pairs[kVector / 2];
};

struct Floats {
  float v[kVector] = {};
};

template <class T>
__device__ inline Packed<T> load(const T* address) {
  return *reinterpret_cast<const Packed<T>*>(address);
}

template <class T>
__device__ inline void store(T* address, const Packed<T>& value) {
  *reinterpret_cast<Packed<T>*>(address) = value;
}

template <class T>
__device__ inline Floats unpack(const Packed<T>& packed) {
  Floats result;
#pragma unroll
  for (int i = 0; i < kVector / 2; ++i) {
    const float2 pair = to_floats(packed.pairs[i]);
    result.v[2 * i] = pair.x;
    result.v[2 * i + 1] = pair.y;
  }
  return result;
}

template <class T>
__device__ inline Packed<T> pack(const Floats& values) {
  Packed<T> result;
#pragma unroll
  for (int i = 0; i < kVector / 2; ++i) from_floats({values.v[2 * i], values.v[2 * i + 1]}, result.pairs[i]);
  return result;
}

__device__ inline Floats load_floats(const float* address) {
  Floats result;
#pragma unroll
  for (int i = 0; i < kVector; i += 4) {
    const float4 four = *reinterpret_cast<const float4*>(address + i);
    result.v[i] = four.x;
    result.v[i + 1] = four.y;
    result.v[i + 2] = four.z;
    result.v[i + 3] = four.w;
  }
  return result;
}

__device__ inline void store_floats(float* address, const Floats& values) {
#pragma unroll
  for (int i = 0; i < kVector; i += 4) {
    *reinterpret_cast<float4*>(address + i) = {values.v[i], values.v[i + 1], values.v[i + 2], values.v[i + 3]};
  }
}

/// Multiplies what stays by the scale and makes the rest 0, whatever it was. column is a multiple of 8.
__device__ inline void apply_dropout(Floats& values, uint64_t seed, uint64_t offset, int64_t row, int column,
                                     uint32_t threshold) {
  const auto random = pointwise_random(seed, offset, row, column / kVector);
  const float scale = dropout_scale(threshold);
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    const uint32_t word = (random[i / 2] >> (16 * (i % 2))) & 0xFFFFu;
    values.v[i] = word < threshold ? values.v[i] * scale : 0.0f;
  }
}

}  // namespace strobe::pointwise
