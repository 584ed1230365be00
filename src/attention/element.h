// One element of a tensor whose type is known at run time. For code where speed does not matter.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "strobe/types.h"

namespace strobe {

constexpr int64_t element_size(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

constexpr const char* name(DType dtype) {
  return dtype == DType::kFloat32 ? "float32" : dtype == DType::kFloat16 ? "float16" : "bfloat16";
}

inline float bfloat16_to_float(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

/// Round to nearest, ties to even; a NaN stays a NaN.
inline uint16_t float_to_bfloat16(float value) {
  if (std::isnan(value)) return 0x7FC0;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

inline float float16_to_float(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) return mantissa != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  return sign * std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
}

/// Round to nearest, ties to even (the default rounding mode of std::nearbyint); overflow gives an infinity.
inline uint16_t float_to_float16(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return 0x7E00;
  if (magnitude >= 65520.0f) return sign | 0x7C00;
  if (magnitude < 0x1p-14f) return sign | static_cast<uint16_t>(std::nearbyint(magnitude * 0x1p24f));
  const int exponent = std::ilogb(magnitude);
  const int mantissa = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  return sign |
         static_cast<uint16_t>(((exponent + 14) << 10) + mantissa);  // a mantissa of 2048 carries into the exponent
}

inline double load_element(const void* base, DType dtype, int64_t index) {
  if (dtype == DType::kFloat32) return static_cast<const float*>(base)[index];
  const uint16_t bits = static_cast<const uint16_t*>(base)[index];
  return dtype == DType::kBFloat16 ? bfloat16_to_float(bits) : float16_to_float(bits);
}

inline void store_element(void* base, DType dtype, int64_t index, float value) {
  if (dtype == DType::kFloat32) {
    static_cast<float*>(base)[index] = value;
  } else {
    static_cast<uint16_t*>(base)[index] =
        dtype == DType::kBFloat16 ? float_to_bfloat16(value) : float_to_float16(value);
  }
}

/// The nearest value that the type can hold.
inline float round_to(DType dtype, float value) {
  if (dtype == DType::kFloat32) return value;
  return dtype == DType::kBFloat16 ? bfloat16_to_float(float_to_bfloat16(value))
                                   : float16_to_float(float_to_float16(value));
}

}  // namespace strobe
