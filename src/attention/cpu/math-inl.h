// Elementary functions on vectors.
#pragma once

namespace strobe::cpu::STROBE_ISA {

inline constexpr float kLog2E = 1.44269504088896341f;

/// 2^x to 1 ulp in [-126, 128), 0 below; exact at infinities, NaN stays NaN.
inline F32 exp2(F32 x) {
  x = max(set1(-kExponentLimit), x);  // in this order a NaN passes
  const F32 n = round(x);
  const F32 r = sub(x, n);
  // Minimax polynomial of 2^r on [-1/2, 1/2], relative error 2.0e-9.
  F32 p = set1(0x1.41fbbcp-13f);
  p = fma(p, r, set1(0x1.5f3e54p-10f));
  p = fma(p, r, set1(0x1.3b2d4cp-7f));
  p = fma(p, r, set1(0x1.c6aee8p-5f));
  p = fma(p, r, set1(0x1.ebfbdcp-3f));
  p = fma(p, r, set1(0x1.62e430p-1f));
  p = fma(p, r, set1(1.0f));
  return scale_by_power(p, n);
}

/// Natural logarithm to 2 ulp of positive normal x; -inf at 0. Infinities and NaN are the caller's.
inline F32 log(F32 x) {
  F32 e = exponent(x), m = mantissa(x);
  // m in [1, 2) to [1/sqrt(2), sqrt(2)): |s| <= 0.172.
  const Mask small = less(m, set1(1.41421356f));
  m = select(small, m, mul(m, set1(0.5f)));
  e = select(small, e, add(e, set1(1.0f)));
  // log m = 2 atanh s = 2 (s + s^3/3 + s^5/5 + ...), s = (m - 1) / (m + 1)
  const F32 s = div(sub(m, set1(1.0f)), add(m, set1(1.0f)));
  const F32 s2 = mul(s, s);
  F32 p = set1(2.0f / 9.0f);
  p = fma(p, s2, set1(2.0f / 7.0f));
  p = fma(p, s2, set1(2.0f / 5.0f));
  p = fma(p, s2, set1(2.0f / 3.0f));
  p = mul(mul(p, s2), s);
  // ln 2 in two parts: e * 0.693145751953125 is exact.
  const F32 tail = fma(e, set1(1.42860677e-6f), p);
  const F32 result = add(fma(e, set1(0.693145751953125f), add(s, s)), tail);
  return select(is_zero(x), set1(-__builtin_inff()), result);
}

}  // namespace strobe::cpu::STROBE_ISA
