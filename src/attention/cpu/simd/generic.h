// Any machine: 4 floats in the vector extension of GCC and Clang.
#pragma once

#include <cmath>
#include <cstring>

#include "src/attention/cpu/simd/types.h"

namespace strobe::cpu::STROBE_ISA {

typedef float F32 __attribute__((vector_size(16)));
typedef int32_t Mask __attribute__((vector_size(16)));  // -1 or 0 in a lane

inline constexpr int kLanes = 4;
// 4 x 2 accumulators, 2 vectors of B, one of A and a product fit the 16 registers of SSE2 and more so 32.
inline constexpr int kTileRows = 4;
inline constexpr int kTileVectors = 2;
inline constexpr int kBf16PerUnit = 1;

inline F32 zero() { return F32{}; }
inline F32 set1(float x) { return F32{x, x, x, x}; }
inline F32 add(F32 a, F32 b) { return a + b; }
inline F32 sub(F32 a, F32 b) { return a - b; }
inline F32 mul(F32 a, F32 b) { return a * b; }
inline F32 div(F32 a, F32 b) { return a / b; }
/// a * b + c, rounded once or twice as the machine likes
inline F32 fma(F32 a, F32 b, F32 c) { return a * b + c; }
/// a where the mask is set, b elsewhere.
inline F32 select(Mask mask, F32 a, F32 b) { return mask ? a : b; }
/// Both give b where either is NaN.
inline F32 max(F32 a, F32 b) { return select(a > b, a, b); }
inline F32 min(F32 a, F32 b) { return select(a < b, a, b); }

/// Lanes begin <= lane < end; either may lie outside 0..kLanes.
inline Mask lanes_between(int begin, int end) {
  const Mask lane = {0, 1, 2, 3};
  return (lane >= begin) & (lane < end);
}
/// Lane l is in iff bit l is set.
inline Mask lanes_of_bits(uint32_t bits) {
  const Mask bit = {1, 2, 4, 8};
  return (static_cast<int32_t>(bits) & bit) != 0;
}
inline Mask both(Mask a, Mask b) { return a & b; }
inline Mask is_zero(F32 a) { return a == 0.0f; }
inline Mask less(F32 a, F32 b) { return a < b; }
/// Neither NaN nor infinite, in all lanes.
inline bool all_finite(F32 a) {
  return std::isfinite(a[0]) && std::isfinite(a[1]) && std::isfinite(a[2]) && std::isfinite(a[3]);
}

inline F32 load(const float* p) {
  F32 a;
  std::memcpy(&a, p, sizeof a);
  return a;
}
inline void store(float* p, F32 a) { std::memcpy(p, &a, sizeof a); }
/// The first n elements, zeros behind them.
inline F32 load_n(const float* p, int n) {
  if (n >= kLanes) return load(p);
  F32 a = zero();
  for (int l = 0; l < n; ++l) a[l] = p[l];
  return a;
}
inline void store_n(float* p, F32 a, int n) {
  if (n >= kLanes) return store(p, a);
  for (int l = 0; l < n; ++l) p[l] = a[l];
}

// Head dims are multiples of 8, so a vector of bf16 is whole or empty.
inline F32 load_n(const Bf16* p, int n) {
  if (n <= 0) return zero();
  const Mask bits = {p[0].bits, p[1].bits, p[2].bits, p[3].bits};
  return reinterpret_cast<F32>(bits << 16);
}
/// To nearest, ties to even; a NaN stays one.
inline void store_n(Bf16* p, F32 a, int n) {
  if (n <= 0) return;
  typedef uint32_t U32 __attribute__((vector_size(16)));
  const U32 bits = reinterpret_cast<U32>(a);
  const U32 rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  for (int l = 0; l < kLanes; ++l) p[l].bits = static_cast<uint16_t>(a[l] != a[l] ? 0x7FC0u : rounded[l]);
}

inline float first(F32 a) { return a[0]; }
inline float reduce_max(F32 a) {
  const float x = a[0] > a[1] ? a[0] : a[1], y = a[2] > a[3] ? a[2] : a[3];
  return x > y ? x : y;
}
inline float reduce_add(F32 a) { return (a[0] + a[2]) + (a[1] + a[3]); }

/// To the nearest integer, for |a| < 2^22.
inline F32 round(F32 a) {
  const F32 shift = set1(12582912.0f);  // 1.5 * 2^23: the sum has no fraction bits left
  return (a + shift) - shift;
}
/// a * 2^n for integral n in [-kExponentLimit, kExponentLimit].
inline F32 scale_by_power(F32 a, F32 n) {
  const Mask biased =
      reinterpret_cast<Mask>(n + 12583039.0f);  // 1.5 * 2^23 + 127: the biased exponent is in the low bits
  return a * reinterpret_cast<F32>(biased << 23);
}
inline constexpr float kExponentLimit = 127;  // 2^-127 is 0 here and 2^128 infinite

/// a = mantissa * 2^exponent with the mantissa in [1, 2), for positive normal a.
inline F32 exponent(F32 a) {
  const Mask e = (reinterpret_cast<Mask>(a) >> 23) - 127;
  return __builtin_convertvector(e, F32);
}
inline F32 mantissa(F32 a) { return reinterpret_cast<F32>((reinterpret_cast<Mask>(a) & 0x7FFFFF) | 0x3F800000); }

/// The 4 x 4 matrix whose rows are r, transposed in place.
inline void transpose(F32 (&r)[kLanes]) {
  const F32 a = r[0], b = r[1], c = r[2], d = r[3];
  r[0] = F32{a[0], b[0], c[0], d[0]};
  r[1] = F32{a[1], b[1], c[1], d[1]};
  r[2] = F32{a[2], b[2], c[2], d[2]};
  r[3] = F32{a[3], b[3], c[3], d[3]};
}

// 64-bit lanes, for the 32 x 32 bit products of the random generator.
typedef uint64_t U64 __attribute__((vector_size(16)));
inline constexpr int kLanes64 = 2;

inline U64 set1_u64(uint64_t x) { return U64{x, x}; }
/// x, x + 1
inline U64 ascending(uint64_t x) { return U64{x, x + 1}; }
/// The product of the low halves.
inline U64 multiply_low(U64 a, U64 b) { return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu); }
inline U64 high_half(U64 a) { return a >> 32; }
inline U64 xor3(U64 a, U64 b, U64 c) { return a ^ b ^ c; }
/// Bit l: (a & mask) < limit in lane l.
inline uint32_t masked_below(U64 a, U64 mask, U64 limit) {
  const U64 x = a & mask;
  return static_cast<uint32_t>(x[0] < limit[0]) | static_cast<uint32_t>(x[1] < limit[1]) << 1;
}

}  // namespace strobe::cpu::STROBE_ISA
