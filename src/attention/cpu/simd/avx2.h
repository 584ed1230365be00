// AVX2 with FMA: 8 floats.
#pragma once

#include <immintrin.h>

#include "src/attention/cpu/simd/types.h"

namespace strobe::cpu::STROBE_ISA {

using F32 = __m256;
using Mask = __m256;  // all bits of a lane or none

inline constexpr int kLanes = 8;
// 6 x 2 accumulators, 2 vectors of B and one of A use 15 of the 16 registers.
inline constexpr int kTileRows = 6;
inline constexpr int kTileVectors = 2;
inline constexpr int kBf16PerUnit = 1;

inline F32 zero() { return _mm256_setzero_ps(); }
inline F32 set1(float x) { return _mm256_set1_ps(x); }
inline F32 add(F32 a, F32 b) { return _mm256_add_ps(a, b); }
inline F32 sub(F32 a, F32 b) { return _mm256_sub_ps(a, b); }
inline F32 mul(F32 a, F32 b) { return _mm256_mul_ps(a, b); }
inline F32 div(F32 a, F32 b) { return _mm256_div_ps(a, b); }
/// a * b + c
inline F32 fma(F32 a, F32 b, F32 c) { return _mm256_fmadd_ps(a, b, c); }
/// Both give b where either is NaN.
inline F32 max(F32 a, F32 b) { return _mm256_max_ps(a, b); }
inline F32 min(F32 a, F32 b) { return _mm256_min_ps(a, b); }

/// Lanes begin <= lane < end; either may lie outside 0..kLanes.
inline Mask lanes_between(int begin, int end) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i from = _mm256_cmpgt_epi32(_mm256_set1_epi32(begin), lane);
  const __m256i to = _mm256_cmpgt_epi32(_mm256_set1_epi32(end), lane);
  return _mm256_castsi256_ps(_mm256_andnot_si256(from, to));
}
/// Lane l is in iff bit l is set.
inline Mask lanes_of_bits(uint32_t bits) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i all = _mm256_set1_epi32(static_cast<int>(bits));
  return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(all, bit), bit));
}
inline Mask both(Mask a, Mask b) { return _mm256_and_ps(a, b); }
inline Mask is_zero(F32 a) { return _mm256_cmp_ps(a, zero(), _CMP_EQ_OQ); }
inline Mask less(F32 a, F32 b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
/// Neither NaN nor infinite, in all lanes.
inline bool all_finite(F32 a) {
  const F32 magnitude = _mm256_andnot_ps(set1(-0.0f), a);
  return _mm256_movemask_ps(_mm256_cmp_ps(magnitude, set1(__builtin_inff()), _CMP_NLT_UQ)) == 0;
}
/// a where the mask is set, b elsewhere.
inline F32 select(Mask mask, F32 a, F32 b) { return _mm256_blendv_ps(b, a, mask); }

inline F32 load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, F32 a) { _mm256_storeu_ps(p, a); }
/// The first n elements, zeros behind them.
inline F32 load_n(const float* p, int n) {
  if (n >= kLanes) return load(p);
  return _mm256_maskload_ps(p, _mm256_castps_si256(lanes_between(0, n)));
}
inline void store_n(float* p, F32 a, int n) {
  if (n >= kLanes) return store(p, a);
  _mm256_maskstore_ps(p, _mm256_castps_si256(lanes_between(0, n)), a);
}

// Head dims are multiples of 8, so a vector of bf16 is whole or empty.
inline F32 load_n(const Bf16* p, int n) {
  if (n <= 0) return zero();
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
/// To nearest, ties to even; a NaN stays one.
inline void store_n(Bf16* p, F32 a, int n) {
  if (n <= 0) return;
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7FFF));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  const __m256i chosen = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7FC00000), nan), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(chosen, chosen), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}

inline float first(F32 a) { return _mm256_cvtss_f32(a); }
inline float reduce_max(F32 a) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
inline float reduce_add(F32 a) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

inline F32 round(F32 a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/// a * 2^n for integral n in [-kExponentLimit, kExponentLimit].
inline F32 scale_by_power(F32 a, F32 n) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return mul(a, _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23)));
}
inline constexpr float kExponentLimit = 127;  // 2^-127 is 0 here and 2^128 infinite

/// a = mantissa * 2^exponent with the mantissa in [1, 2), for positive normal a.
inline F32 exponent(F32 a) {
  const __m256i biased = _mm256_srli_epi32(_mm256_castps_si256(a), 23);
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(biased, _mm256_set1_epi32(127)));
}
inline F32 mantissa(F32 a) {
  const __m256i fraction = _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(0x7FFFFF));
  return _mm256_castsi256_ps(_mm256_or_si256(fraction, _mm256_set1_epi32(0x3F800000)));
}

/// The 8 x 8 matrix whose rows are r, transposed in place.
inline void transpose(F32 (&r)[kLanes]) {
  F32 t[kLanes];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {  // r[i + j]: columns j and j + 4 of rows i..i+3
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const F32 upper = r[j], lower = r[4 + j];
    r[j] = _mm256_permute2f128_ps(upper, lower, 0x20);
    r[4 + j] = _mm256_permute2f128_ps(upper, lower, 0x31);
  }
}

// 64-bit lanes, for the 32 x 32 bit products of the random generator.
using U64 = __m256i;
inline constexpr int kLanes64 = 4;

inline U64 set1_u64(uint64_t x) { return _mm256_set1_epi64x(static_cast<long long>(x)); }
/// x, x + 1, x + 2, ...
inline U64 ascending(uint64_t x) { return _mm256_add_epi64(set1_u64(x), _mm256_set_epi64x(3, 2, 1, 0)); }
/// The product of the low halves.
inline U64 multiply_low(U64 a, U64 b) { return _mm256_mul_epu32(a, b); }
inline U64 high_half(U64 a) { return _mm256_srli_epi64(a, 32); }
inline U64 xor3(U64 a, U64 b, U64 c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
/// Bit l: (a & mask) < limit in lane l; both sides are below 2^63.
inline uint32_t masked_below(U64 a, U64 mask, U64 limit) {
  const __m256i below = _mm256_cmpgt_epi64(limit, _mm256_and_si256(a, mask));
  return static_cast<uint32_t>(_mm256_movemask_pd(_mm256_castsi256_pd(below)));
}

}  // namespace strobe::cpu::STROBE_ISA
