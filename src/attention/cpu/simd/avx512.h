// AVX-512 (F, BW, DQ, VL): 16 floats.
#pragma once

#include <immintrin.h>

#include "src/attention/cpu/simd/types.h"

namespace strobe::cpu::STROBE_ISA {

using F32 = __m512;
using Mask = __mmask16;

inline constexpr int kLanes = 16;
// 6 x 4 accumulators, 4 vectors of B and one of A use 29 of the 32 registers.
inline constexpr int kTileRows = 6;
inline constexpr int kTileVectors = 4;

inline F32 zero() { return _mm512_setzero_ps(); }
inline F32 set1(float x) { return _mm512_set1_ps(x); }
inline F32 add(F32 a, F32 b) { return _mm512_add_ps(a, b); }
inline F32 sub(F32 a, F32 b) { return _mm512_sub_ps(a, b); }
inline F32 mul(F32 a, F32 b) { return _mm512_mul_ps(a, b); }
inline F32 div(F32 a, F32 b) { return _mm512_div_ps(a, b); }
/// a * b + c
inline F32 fma(F32 a, F32 b, F32 c) { return _mm512_fmadd_ps(a, b, c); }
/// Both give b where either is NaN.
inline F32 max(F32 a, F32 b) { return _mm512_max_ps(a, b); }
inline F32 min(F32 a, F32 b) { return _mm512_min_ps(a, b); }

/// Lanes begin <= lane < end; either may lie outside 0..kLanes.
inline Mask lanes_between(int begin, int end) {
  const uint32_t below_end = end <= 0 ? 0 : end >= kLanes ? 0xFFFFu : (1u << end) - 1;
  const uint32_t below_begin = begin <= 0 ? 0 : begin >= kLanes ? 0xFFFFu : (1u << begin) - 1;
  return static_cast<Mask>(below_end & ~below_begin);
}
/// Lane l is in iff bit l is set.
inline Mask lanes_of_bits(uint32_t bits) { return static_cast<Mask>(bits); }
inline Mask both(Mask a, Mask b) { return a & b; }
inline Mask is_zero(F32 a) { return _mm512_cmp_ps_mask(a, zero(), _CMP_EQ_OQ); }
inline Mask less(F32 a, F32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
/// Neither NaN nor infinite, in all lanes.
inline bool all_finite(F32 a) { return _mm512_cmp_ps_mask(_mm512_abs_ps(a), set1(__builtin_inff()), _CMP_NLT_UQ) == 0; }
/// a where the mask is set, b elsewhere.
inline F32 select(Mask mask, F32 a, F32 b) { return _mm512_mask_blend_ps(mask, b, a); }

inline F32 load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, F32 a) { _mm512_storeu_ps(p, a); }
/// The first n elements, zeros behind them.
inline F32 load_n(const float* p, int n) {
  return n >= kLanes ? load(p) : _mm512_maskz_loadu_ps(lanes_between(0, n), p);
}
inline void store_n(float* p, F32 a, int n) {
  if (n >= kLanes) return store(p, a);
  _mm512_mask_storeu_ps(p, lanes_between(0, n), a);
}

inline F32 widen(__m256i bf16) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bf16), 16)); }
inline F32 load_n(const Bf16* p, int n) { return widen(_mm256_maskz_loadu_epi16(lanes_between(0, n), p)); }

/// To nearest, ties to even; a NaN stays one.
inline __m256i narrow(F32 a) {
#ifdef __AVX512BF16__
  return (__m256i)_mm512_cvtneps_pbh(a);
#else
  const __m512i bits = _mm512_castps_si512(a);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7FFF));
  const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
  const __m512i chosen = _mm512_mask_blend_epi32(nan, rounded, _mm512_set1_epi32(0x7FC00000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(chosen, 16));
#endif
}
inline void store_n(Bf16* p, F32 a, int n) { _mm256_mask_storeu_epi16(p, lanes_between(0, n), narrow(a)); }

inline float reduce_max(F32 a) { return _mm512_reduce_max_ps(a); }
inline float reduce_add(F32 a) { return _mm512_reduce_add_ps(a); }
inline float first(F32 a) { return _mm512_cvtss_f32(a); }

inline F32 round(F32 a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/// a * 2^n for integral n in [-kExponentLimit, kExponentLimit].
inline F32 scale_by_power(F32 a, F32 n) { return _mm512_scalef_ps(a, n); }
inline constexpr float kExponentLimit = 200;

/// a = mantissa * 2^exponent with the mantissa in [1, 2), for positive finite a.
inline F32 exponent(F32 a) { return _mm512_getexp_ps(a); }
inline F32 mantissa(F32 a) { return _mm512_getmant_ps(a, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src); }

/// The 16 x 16 matrix whose rows are r, transposed in place.
inline void transpose(F32 (&r)[kLanes]) {
  F32 t[kLanes];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
  const auto low = [](F32 a, F32 b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  const auto high = [](F32 a, F32 b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {  // r[i + j]: column 4 c + j of rows i..i+3 in 128-bit lane c
    r[i] = low(t[i], t[i + 2]);
    r[i + 1] = high(t[i], t[i + 2]);
    r[i + 2] = low(t[i + 1], t[i + 3]);
    r[i + 3] = high(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const F32 even01 = _mm512_shuffle_f32x4(r[j], r[4 + j], 0x88), odd01 = _mm512_shuffle_f32x4(r[j], r[4 + j], 0xDD);
    const F32 even23 = _mm512_shuffle_f32x4(r[8 + j], r[12 + j], 0x88);
    const F32 odd23 = _mm512_shuffle_f32x4(r[8 + j], r[12 + j], 0xDD);
    r[j] = _mm512_shuffle_f32x4(even01, even23, 0x88);
    r[8 + j] = _mm512_shuffle_f32x4(even01, even23, 0xDD);
    r[4 + j] = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
    r[12 + j] = _mm512_shuffle_f32x4(odd01, odd23, 0xDD);
  }
}

// 64-bit lanes, for the 32 x 32 bit products of the random generator.
using U64 = __m512i;
inline constexpr int kLanes64 = 8;

inline U64 set1_u64(uint64_t x) { return _mm512_set1_epi64(static_cast<long long>(x)); }
/// x, x + 1, x + 2, ...
inline U64 ascending(uint64_t x) { return _mm512_add_epi64(set1_u64(x), _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0)); }
/// The product of the low halves.
inline U64 multiply_low(U64 a, U64 b) { return _mm512_mul_epu32(a, b); }
inline U64 high_half(U64 a) { return _mm512_srli_epi64(a, 32); }
inline U64 xor3(U64 a, U64 b, U64 c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
/// Bit l: (a & mask) < limit in lane l; both sides are below 2^63.
inline uint32_t masked_below(U64 a, U64 mask, U64 limit) {
  return _mm512_cmplt_epi64_mask(_mm512_and_si512(a, mask), limit);
}

#ifndef __AVX512BF16__
inline constexpr int kBf16PerUnit = 1;
#endif

}  // namespace strobe::cpu::STROBE_ISA
