// AVX-512 with the dot product of bf16 pairs.
#pragma once

#include "src/attention/cpu/simd/avx512.h"

namespace strobe::cpu::STROBE_ISA {

inline constexpr int kBf16PerUnit = 2;

template <>
struct Dot<2> {
  static F32 apply(F32 a, F32 b, F32 c) { return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b); }

  /// Unit l = (low[l], high[l]), rounded to bf16.
  static F32 combine(F32 low, F32 high) {
    const __m512i words = (__m512i)_mm512_cvtne2ps_pbh(high, low);
    const __m512i order =
        _mm512_set_epi32(0x1F000F, 0x1E000E, 0x1D000D, 0x1C000C, 0x1B000B, 0x1A000A, 0x190009, 0x180008, 0x170007,
                         0x160006, 0x150005, 0x140004, 0x130003, 0x120002, 0x110001, 0x100000);
    // Low words of `order` pick from words 0..15 (low), high words from 16..31 (high).
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, words));
  }

  /// Unit l = (low[l], high[l]) of the first n; high may be null: zeros.
  static F32 interleave_n(const Bf16* low, const Bf16* high, int n) {
    const Mask mask = lanes_between(0, n);
    const __m512i a = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, low));
    if (high == nullptr) return _mm512_castsi512_ps(a);
    const __m512i b = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, high));
    return _mm512_castsi512_ps(_mm512_or_si512(a, _mm512_slli_epi32(b, 16)));
  }
};

}  // namespace strobe::cpu::STROBE_ISA
