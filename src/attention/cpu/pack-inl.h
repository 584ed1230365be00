// Rows of a tensor, brought into the forms that the products read: contiguous, in units, with zeros in place of what
// lies behind the last row and the last column.
#pragma once

#include "src/attention/cpu/geometry-inl.h"

namespace strobe::cpu::STROBE_ISA {

/// How many elements of an operand of type Io a unit holds.
template <class Io>
inline constexpr int kPerUnitOf = 1;
template <>
inline constexpr int kPerUnitOf<Bf16> = kBf16PerUnit;

/// Rows of one head in memory.
template <class Io>
struct Rows {
  const Io* first;
  int64_t stride;

  const Io* row(int64_t i) const { return first + i * stride; }
  Rows from(int64_t i) const { return {row(i), stride}; }
};

/// Units [unit, unit + kLanes) of a row that has `units`, zeros behind them.
template <class Io>
inline F32 load_units(const Io* row, int64_t unit, int64_t units) {
  const int count = static_cast<int>(units - unit);
  if constexpr (kPerUnitOf<Io> == 2) {
    return load_n(reinterpret_cast<const float*>(row + 2 * unit), count);
  } else {
    return load_n(row + unit, count);
  }
}

/// to[u][j] = units u of row j: the transpose, with round_up(rows, kLanes) columns.
template <class Io>
void pack_transposed(Rows<Io> from, int64_t rows, int64_t head_dim, float* to, int64_t ld) {
  const int64_t units = head_dim / kPerUnitOf<Io>;
  for (int64_t j = 0; j < rows; j += kLanes) {
    for (int64_t unit = 0; unit < units; unit += kLanes) {
      F32 block[kLanes];
#pragma GCC unroll 16
      for (int l = 0; l < kLanes; ++l) block[l] = j + l < rows ? load_units(from.row(j + l), unit, units) : zero();
      transpose(block);
      float* corner = to + unit * ld + j;
#pragma GCC unroll 16
      for (int l = 0; l < kLanes; ++l) {
        if (unit + l < units) store(corner + l * ld, block[l]);
      }
    }
  }
}

/// to[i][u] = unit u of row i, for products that sum over the head dim; ld >= round_up(units, kLanes).
template <class Io>
void pack_rows(Rows<Io> from, int64_t rows, int64_t head_dim, float* to, int64_t ld) {
  const int64_t units = head_dim / kPerUnitOf<Io>;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t unit = 0; unit < units; unit += kLanes) {
      store(to + i * ld + unit, load_units(from.row(i), unit, units));
    }
  }
}

/// For products that sum over the rows: to[i / kPerUnit][d] holds column d of kPerUnit successive rows.
template <class Io>
void pack_summed_rows(Rows<Io> from, int64_t rows, int64_t head_dim, float* to, int64_t ld) {
  if constexpr (kPerUnitOf<Io> == 1) {
    pack_rows(from, rows, head_dim, to, ld);
  } else {
    for (int64_t i = 0; i < rows; i += 2) {
      const Io* low = from.row(i);
      const Io* high = i + 1 < rows ? from.row(i + 1) : nullptr;
      for (int64_t d = 0; d < head_dim; d += kLanes) {
        const int count = static_cast<int>(head_dim - d);
        store(to + i / 2 * ld + d,
              Dot<kPerUnitOf<Io>>::interleave_n(low + d, high == nullptr ? high : high + d, count));
      }
    }
  }
}

template <class Io>
bool rows_are_finite(Rows<Io> from, int64_t rows, int64_t head_dim) {
  F32 sum = zero();  // of 0 * x: NaN as soon as one x is not finite
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t d = 0; d < head_dim; d += kLanes) {
      sum = fma(load_n(from.row(i) + d, static_cast<int>(head_dim - d)), zero(), sum);
    }
  }
  return all_finite(sum);
}

inline bool values_are_finite(const float* from, int64_t count) {
  F32 sum = zero();
  for (int64_t i = 0; i < count; i += kLanes) {
    sum = fma(load_n(from + i, static_cast<int>(count - i)), zero(), sum);
  }
  return all_finite(sum);
}

/// to[0..head_dim) += factor * row
template <class Io>
void add_scaled(float factor, const Io* row, int64_t head_dim, float* to) {
  for (int64_t d = 0; d < head_dim; d += kLanes) {
    store(to + d, fma(set1(factor), load_n(row + d, static_cast<int>(head_dim - d)), load(to + d)));
  }
}

inline void set_zero(float* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = 0.0f;
}

template <class Io>
void write_zero_rows(Io* to, int64_t stride, int64_t rows, int64_t head_dim) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t d = 0; d < head_dim; d += kLanes) {
      store_n(to + i * stride + d, zero(), static_cast<int>(head_dim - d));
    }
  }
}

/// to[i] = factor * from[i]
template <class Io>
void write_rows(const float* from, int64_t ld, float factor, int64_t rows, int64_t head_dim, Io* to, int64_t stride) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t d = 0; d < head_dim; d += kLanes) {
      store_n(to + i * stride + d, mul(set1(factor), load(from + i * ld + d)), static_cast<int>(head_dim - d));
    }
  }
}

/// Element j of a row of P or dS as the products read it.
template <int kPerUnit>
inline float element(const float* row, int64_t j) {
  if constexpr (kPerUnit == 1) {
    return row[j];
  } else {
    uint16_t bits;
    __builtin_memcpy(&bits, reinterpret_cast<const char*>(row) + 2 * j, sizeof bits);
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float value;
    __builtin_memcpy(&value, &wide, sizeof value);
    return value;
  }
}

}  // namespace strobe::cpu::STROBE_ISA
