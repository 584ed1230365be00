// One tile of the backward pass: a block of queries against a block of keys.
// FlashAttention-2 (arXiv 2307.08691), Algorithm 2, lines 10 to 16; the same sums as FlashAttention's Algorithm 4.
#pragma once

#include "src/attention/cpu/config.h"
#include "src/attention/cpu/dropout-inl.h"
#include "src/attention/cpu/gemm-inl.h"
#include "src/attention/cpu/math-inl.h"
#include "src/attention/cpu/pack-inl.h"

namespace strobe::cpu::STROBE_ISA {

/// Keys [begin, end) of one head, packed.
template <class Io>
struct GradKeys {
  int64_t begin, end;
  const float *k, *v;  // transposed: [units of D][ldk]
  int64_t ldk;
  const float* k_rows;     // [units of keys][ld_head], for dQ
  Rows<Io> k_memory;       // from key `begin`
  bool finite;             // K
  float *grad_k, *grad_v;  // [keys][ld_head], sums so far
};

/// Rows [first, first + rows) of one query head, packed.
template <class Io>
struct GradQueries {
  int64_t first, rows;
  const float *q, *grad_out;            // rows of units: [rows][ld_head]
  const float *q_rows, *grad_out_rows;  // [units of rows][ld_head], for dK and dV
  Rows<Io> q_memory, grad_out_memory;   // from row `first`
  const float *lse, *delta;             // [rows]
  float* grad_q;                        // [rows][ld_head], the sum so far

  /// Whether Q and dO are surely finite: a row of Q that is not has no finite LSE, a row of dO no finite delta.
  bool finite() const { return values_are_finite(lse, rows) && values_are_finite(delta, rows); }
};

/// Rows of a tile.
inline int64_t query_block(const Visibility& see) { return see.limited ? kBwdLimitedQueryBlock : kBwdQueryBlock; }

/// Buffers for a tile of kBwdQueryBlock x kBwdKeyBlock.
struct GradScratch {
  int64_t ld;      // of p and ds
  float *p, *ds;   // scores, then P and dS with the rows as the summed dimension: [units of rows][ld]
  float* ds_rows;  // dS with the columns as the summed dimension; the same as ds where a unit is one element
  int64_t ld_rows;
  uint8_t* keep;
  int64_t ld_keep;

  template <class Io>
  static GradScratch take(Arena& arena) {
    GradScratch t;
    t.ld = leading(kBwdKeyBlock);
    t.p = arena.floats(kBwdQueryBlock * t.ld);
    t.ds = arena.floats(kBwdQueryBlock * t.ld);
    t.ld_rows = t.ld;
    t.ds_rows = kPerUnitOf<Io> == 1 ? t.ds : arena.floats(kBwdQueryBlock * t.ld);
    t.ld_keep = keep_bytes(kBwdKeyBlock);
    t.keep = static_cast<uint8_t*>(arena.bytes(kBwdQueryBlock * t.ld_keep));
    return t;
  }
};

/// What one row of the tile needs.
struct GradRow {
  float lse, delta;
  Range visible;        // columns of the tile
  const uint8_t* keep;  // null: no dropout
};

struct ProbabilityAndGradient {
  F32 p, ds;
};

/// P after dropout (without its scale) and dS / softmax_scale, from scores s and dP of one vector of a row.
inline ProbabilityAndGradient gradient_vector(const GradRow& row, F32 s, F32 dp, int64_t column, F32 scale,
                                              F32 keep_scale) {
  // The difference first: the rounding error stays relative to the exponent.
  const F32 x = mul(fma(s, scale, set1(-row.lse)), set1(kLog2E));
  F32 p = exp2(min(set1(kExponentLimit + 1), x));
  F32 kept = p;
  if (row.keep != nullptr) {
    const Mask mask = kept_lanes(row.keep, column);
    kept = select(mask, p, zero());
    dp = select(mask, mul(dp, keep_scale), zero());
  }
  F32 ds = mul(p, sub(dp, set1(row.delta)));
  if (column < row.visible.begin || column + kLanes > row.visible.end) {
    const Mask mask =
        lanes_between(static_cast<int>(row.visible.begin - column), static_cast<int>(row.visible.end - column));
    kept = select(mask, kept, zero());
    ds = select(mask, ds, zero());
  }
  return {kept, ds};
}

/// Scores and dP of `rows` rows (t.p, t.ds) to P and dS in all the forms that the products need.
template <int kPerUnit, class RowInfo>
void gradient_rows(const GradScratch& t, int64_t rows, int64_t column, int64_t vectors, float scale, float keep_scale,
                   const RowInfo& info) {
  const F32 scale_vector = set1(scale), keep_vector = set1(keep_scale);
  for (int64_t i = 0; i < rows; i += kPerUnit) {
    const GradRow low = info(i);
    const float *s = t.p + i * t.ld, *dp = t.ds + i * t.ld;
    float *p_out = t.p + i / kPerUnit * t.ld, *ds_out = t.ds + i / kPerUnit * t.ld;
    if constexpr (kPerUnit == 1) {
      for (int64_t v = 0; v < vectors * kLanes; v += kLanes) {
        const auto a = gradient_vector(low, load(s + v), load(dp + v), column + v, scale_vector, keep_vector);
        store(p_out + v, a.p);
        store(ds_out + v, a.ds);
      }
    } else {
      const bool pair = i + 1 < rows;
      const GradRow high = pair ? info(i + 1) : low;
      Bf16* ds_low = reinterpret_cast<Bf16*>(t.ds_rows + i * t.ld_rows);
      Bf16* ds_high = reinterpret_cast<Bf16*>(t.ds_rows + (i + 1) * t.ld_rows);
      for (int64_t v = 0; v < vectors * kLanes; v += kLanes) {
        const auto a = gradient_vector(low, load(s + v), load(dp + v), column + v, scale_vector, keep_vector);
        ProbabilityAndGradient b{zero(), zero()};
        if (pair) {
          b = gradient_vector(high, load(s + t.ld + v), load(dp + t.ld + v), column + v, scale_vector, keep_vector);
          store_n(ds_high + v, b.ds, kLanes);
        }
        store_n(ds_low + v, a.ds, kLanes);
        store(p_out + v, Dot<kPerUnit>::combine(a.p, b.p));
        store(ds_out + v, Dot<kPerUnit>::combine(a.ds, b.ds));
      }
    }
  }
}

/// The three products with each pair's own operands only: something hidden is NaN or infinite.
template <class Io>
void add_visible_gradients(const GradQueries<Io>& q, const GradKeys<Io>& k, const GradScratch& t, const Visibility& see,
                           int64_t column, int64_t head_dim, int64_t ld_head) {
  constexpr int kPerUnit = kPerUnitOf<Io>;
  for (int64_t i = 0; i < q.rows; ++i) {
    const Range keys = intersect(see.of_row(q.first + i), {k.begin, k.end});
    for (int64_t j = keys.begin - k.begin; j < keys.end - k.begin; ++j) {
      const int64_t at = kPerUnit * (j - column) + i % kPerUnit;
      const float p = element<kPerUnit>(t.p + i / kPerUnit * t.ld, at);
      const float ds = element<kPerUnit>(t.ds + i / kPerUnit * t.ld, at);
      add_scaled(p, q.grad_out_memory.row(i), head_dim, k.grad_v + j * ld_head);
      add_scaled(ds, q.q_memory.row(i), head_dim, k.grad_k + j * ld_head);
      add_scaled(ds, k.k_memory.row(j), head_dim, q.grad_q + i * ld_head);
    }
  }
}

/// Adds the tile's part to grad_q, grad_k (both without softmax_scale) and grad_v (without the scale of dropout).
template <class Io>
void add_gradients(const GradQueries<Io>& q, const GradKeys<Io>& k, const GradScratch& t, const Visibility& see,
                   float scale, const Dropout& drop, int64_t head_dim, int64_t ld_head) {
  constexpr int kPerUnit = kPerUnitOf<Io>;
  const Range keys = intersect(see.of_rows(q.first, q.first + q.rows), {k.begin, k.end});
  if (keys.empty()) return;
  const int64_t column = (keys.begin - k.begin) / kLanes * kLanes, columns = keys.end - k.begin - column;
  const int64_t vectors = (columns + kLanes - 1) / kLanes;
  const int64_t units = head_dim / kPerUnit;
  multiply<kPerUnit, false>({.a = q.q,
                             .lda = ld_head,
                             .b = k.k + column,
                             .ldb = k.ldk,
                             .c = t.p,
                             .ldc = t.ld,
                             .rows = q.rows,
                             .vectors = vectors,
                             .depth = units});
  multiply<kPerUnit, false>({.a = q.grad_out,
                             .lda = ld_head,
                             .b = k.v + column,
                             .ldb = k.ldk,
                             .c = t.ds,
                             .ldc = t.ld,
                             .rows = q.rows,
                             .vectors = vectors,
                             .depth = units});
  if (drop.on) keep_bits(drop, q.first, q.rows, k.begin, k.end - k.begin, t.keep, t.ld_keep);
  // Columns count from the block's start, as the keep bits do.
  const auto row = [&](int64_t i) {
    const Range visible = see.of_row(q.first + i);
    return GradRow{q.lse[i],
                   q.delta[i],
                   {visible.begin - k.begin, smaller(visible.end, k.end) - k.begin},
                   drop.on ? t.keep + i * t.ld_keep : nullptr};
  };
  gradient_rows<kPerUnit>(t, q.rows, column, vectors, scale, drop.scale, row);
  if (see.limited && !(k.finite && q.finite())) {
    return add_visible_gradients(q, k, t, see, column, head_dim, ld_head);
  }
  const int64_t head_vectors = ld_head / kLanes, row_units = (q.rows + kPerUnit - 1) / kPerUnit;
  multiply<kPerUnit, true>({.a = t.p,
                            .lda = t.ld,
                            .b = q.grad_out_rows,
                            .ldb = ld_head,
                            .c = k.grad_v + column * ld_head,
                            .ldc = ld_head,
                            .rows = columns,
                            .vectors = head_vectors,
                            .depth = row_units,
                            .add = true});
  multiply<kPerUnit, true>({.a = t.ds,
                            .lda = t.ld,
                            .b = q.q_rows,
                            .ldb = ld_head,
                            .c = k.grad_k + column * ld_head,
                            .ldc = ld_head,
                            .rows = columns,
                            .vectors = head_vectors,
                            .depth = row_units,
                            .add = true});
  multiply<kPerUnit, false>({.a = t.ds_rows,
                             .lda = t.ld_rows,
                             .b = k.k_rows + column / kPerUnit * ld_head,
                             .ldb = ld_head,
                             .c = q.grad_q,
                             .ldc = ld_head,
                             .rows = q.rows,
                             .vectors = head_vectors,
                             .depth = (columns + kPerUnit - 1) / kPerUnit,
                             .add = true});
}

}  // namespace strobe::cpu::STROBE_ISA
