// C (+)= A B on packed operands, with the C tile in registers over the whole summed dimension.
//
// The loop order is that of BLIS (Van Zee and van de Geijn 2015): a panel of B, at most kTileVectors wide, stays in L1
// while the rows of A pass by. An element of C is summed in the order of k whatever the tile that it falls in, so that
// results do not depend on the shape of the blocks.
#pragma once

namespace strobe::cpu::STROBE_ISA {

template <>
struct Dot<1> {
  static F32 apply(F32 a, F32 b, F32 c) { return fma(a, b, c); }
};

/// A: `rows` x `depth` units, in rows (A[m][k] at a[m * lda + k]) or transposed (a[k * lda + m]).
/// B: `depth` units x `vectors` vectors. C: `rows` x `vectors` vectors of floats.
struct Product {
  const float* a;
  int64_t lda;
  const float* b;
  int64_t ldb;
  float* c;
  int64_t ldc;
  int64_t rows, vectors, depth;
  bool add = false;                   // false: C = A B, and what C held is not read
  const float* row_factor = nullptr;  // with add: C = diag(row_factor) C + A B
};

template <int kPerUnit, bool kTransposed, int kRows, int kVectors>
inline void multiply_tile(const Product& g, int64_t row, int64_t vector) {
  float* c = g.c + row * g.ldc + vector * kLanes;
  F32 sum[kRows][kVectors];
  if (!g.add) {
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 8
      for (int n = 0; n < kVectors; ++n) sum[m][n] = zero();
    }
  } else {
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
      const F32 factor = set1(g.row_factor != nullptr ? g.row_factor[row + m] : 1.0f);
#pragma GCC unroll 8
      for (int n = 0; n < kVectors; ++n) sum[m][n] = mul(factor, load(c + m * g.ldc + n * kLanes));
    }
  }
  const float* a = g.a + (kTransposed ? row : row * g.lda);
  const float* b = g.b + vector * kLanes;
  for (int64_t k = 0; k < g.depth; ++k) {
    F32 b_row[kVectors];
#pragma GCC unroll 8
    for (int n = 0; n < kVectors; ++n) b_row[n] = load(b + n * kLanes);
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
      const F32 factor = set1(kTransposed ? a[m] : a[m * g.lda]);
#pragma GCC unroll 8
      for (int n = 0; n < kVectors; ++n) sum[m][n] = Dot<kPerUnit>::apply(factor, b_row[n], sum[m][n]);
    }
    a += kTransposed ? g.lda : 1;
    b += g.ldb;
  }
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 8
    for (int n = 0; n < kVectors; ++n) store(c + m * g.ldc + n * kLanes, sum[m][n]);
  }
}

template <int kPerUnit, bool kTransposed, int kVectors, int kRows = kTileRows - 1>
inline void multiply_last_rows(const Product& g, int64_t row, int64_t vector) {
  if constexpr (kRows > 0) {
    if (g.rows - row == kRows) return multiply_tile<kPerUnit, kTransposed, kRows, kVectors>(g, row, vector);
    multiply_last_rows<kPerUnit, kTransposed, kVectors, kRows - 1>(g, row, vector);
  }
}

template <int kPerUnit, bool kTransposed, int kVectors>
__attribute__((noinline)) void multiply_panel(const Product& g, int64_t vector) {
  int64_t row = 0;
  for (; row + kTileRows <= g.rows; row += kTileRows) {
    multiply_tile<kPerUnit, kTransposed, kTileRows, kVectors>(g, row, vector);
  }
  multiply_last_rows<kPerUnit, kTransposed, kVectors>(g, row, vector);
}

template <int kPerUnit, bool kTransposed>
void multiply(const Product& g) {
  // Panels of nearly equal width: 13 vectors are 4 + 3 + 3 + 3, because a narrow tile has too few accumulators to hide
  // the latency of the multiplier.
  const int64_t panels = (g.vectors + kTileVectors - 1) / kTileVectors;
  int64_t vector = 0;
  for (int64_t panel = 0; panel < panels; ++panel) {
    const int64_t left = panels - panel;
    const int64_t width = (g.vectors - vector + left - 1) / left;
    switch (width) {
      case 1:
        multiply_panel<kPerUnit, kTransposed, 1>(g, vector);
        break;
      case 2:
        multiply_panel<kPerUnit, kTransposed, 2>(g, vector);
        break;
      case 3:
        if constexpr (kTileVectors >= 3) multiply_panel<kPerUnit, kTransposed, 3>(g, vector);
        break;
      default:
        if constexpr (kTileVectors >= 4) multiply_panel<kPerUnit, kTransposed, 4>(g, vector);
    }
    vector += width;
  }
}

}  // namespace strobe::cpu::STROBE_ISA
