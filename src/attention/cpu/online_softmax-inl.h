// A strip of queries against a block of keys: scores, online softmax, and the product with the values.
// FlashAttention-2 (arXiv 2307.08691), Algorithm 1, lines 8 to 10.
#pragma once

#include "src/attention/cpu/config.h"
#include "src/attention/cpu/dropout-inl.h"
#include "src/attention/cpu/gemm-inl.h"
#include "src/attention/cpu/math-inl.h"
#include "src/attention/cpu/pack-inl.h"

namespace strobe::cpu::STROBE_ISA {

/// Keys [begin, end) of one head, packed.
template <class Io>
struct KeyBlock {
  int64_t begin, end;
  const float* k;  // transposed: [units of D][ldk]
  int64_t ldk;
  const float* v;  // [units of keys][ldv]
  int64_t ldv;
  Rows<Io> v_rows;  // in memory, from key `begin`
  bool v_finite;
};

/// What the blocks of keys so far have left of some rows: O = sum of exp(s - max) v, not yet divided by the sum.
struct RowState {
  float* o;  // [rows][ldo]
  int64_t ldo;
  float* max;  // [rows], of the unscaled scores
  float* sum;  // [rows][kLanes]; the row's sum is that of the lanes

  RowState from(int64_t i) const { return {o + i * ldo, ldo, max + i, sum + i * kLanes}; }
  void clear(int64_t rows) const {
    for (int64_t i = 0; i < rows; ++i) max[i] = -__builtin_inff();
    set_zero(sum, rows * kLanes);
  }
};

/// Rows of a strip.
inline int64_t strip_rows(const Visibility& see) { return see.limited ? kFwdLimitedStripRows : kFwdStripRows; }

/// Rows [first, first + rows) of one query head.
struct Strip {
  int64_t first, rows;
  const float* q;  // packed rows
  int64_t ldq;
  RowState state;
  bool started;   // O holds something
  float* scores;  // scratch [rows][lds]
  int64_t lds;
  float* rescale;       // scratch [rows]
  const uint8_t* keep;  // null: no dropout; of row `first` and key `block.begin`
  int64_t ld_keep;
};

/// -inf in a row of scores outside columns [visible.begin, visible.end), and the largest of the row and `least`.
inline float mask_and_max(float* s, int64_t vectors, Range visible, float least) {
  F32 lane_max = set1(least);
  for (int64_t v = 0; v < vectors * kLanes; v += kLanes) {
    F32 x = load(s + v);
    if (v < visible.begin || v + kLanes > visible.end) {
      const Mask mask = lanes_between(static_cast<int>(visible.begin - v), static_cast<int>(visible.end - v));
      x = select(mask, x, set1(-__builtin_inff()));
      store(s + v, x);
    }
    // A NaN may get lost here; its exponential brings it into the sum and the output.
    lane_max = max(lane_max, x);
  }
  return reduce_max(lane_max);
}

/// What exp(s - base) refers to; where all scores so far are -inf any finite base gives P = 0.
inline F32 finite_base(F32 max_) { return select(less(set1(-__builtin_inff()), max_), max_, zero()); }

/// Replaces new maxima (in t.rescale) by the factors for what had been summed before, and the state's by them.
inline void update_max(const Strip& t, float log2_scale) {
  for (int64_t r = 0; r < t.rows; r += kLanes) {
    const int count = static_cast<int>(t.rows - r);
    const F32 old_max = load_n(t.state.max + r, count), new_max = load_n(t.rescale + r, count);
    store_n(t.state.max + r, new_max, count);
    store_n(t.rescale + r, exp2(mul(sub(old_max, finite_base(new_max)), set1(log2_scale))), count);
  }
}

/// A row of masked scores to P = exp(s - base), stored as the product reads it; returns the sum of each lane. `keep`
/// (null, or at the block's first column) drops elements of P but not of the sum.
template <int kPerUnit>
inline F32 exponentiate(float* s, int64_t vectors, float max_, float log2_scale, const uint8_t* keep, int64_t column) {
  const F32 factor = set1(log2_scale), base = finite_base(set1(max_));
  F32 sum = zero();
  for (int64_t v = 0; v < vectors * kLanes; v += kLanes) {
    // Subtracting first keeps the rounding error relative to the exponent, not to the scores.
    F32 p = exp2(mul(sub(load(s + v), base), factor));
    sum = add(sum, p);
    if (keep != nullptr) p = select(kept_lanes(keep, column + v), p, zero());
    if constexpr (kPerUnit == 1) {
      store(s + v, p);
    } else {
      store_n(reinterpret_cast<Bf16*>(s) + v, p, kLanes);
    }
  }
  return sum;
}

/// Scores of a strip to P, and the state's max and sum to what they are with this block's keys. One kind of work at a
/// time over all rows: within a row each waits for the one before. Columns are those of the block, from `column` on.
template <int kPerUnit>
void softmax_strip(const Strip& t, Range block, const Visibility& see, int64_t column, int64_t vectors,
                   float log2_scale) {
  const int64_t origin = block.begin + column;
  for (int64_t r = 0; r < t.rows; ++r) {
    const Range visible = see.of_row(t.first + r);
    t.rescale[r] = mask_and_max(t.scores + r * t.lds, vectors,
                                {visible.begin - origin, smaller(visible.end, block.end) - origin}, t.state.max[r]);
  }
  update_max(t, log2_scale);
  for (int64_t r = 0; r < t.rows; ++r) {
    const uint8_t* keep = t.keep == nullptr ? nullptr : t.keep + r * t.ld_keep;
    const F32 sum = exponentiate<kPerUnit>(t.scores + r * t.lds, vectors, t.state.max[r], log2_scale, keep, column);
    float* row_sum = t.state.sum + r * kLanes;
    store(row_sum, fma(load(row_sum), set1(t.rescale[r]), sum));
  }
}

/// O = diag(rescale) O + P V with each row's own keys only: some hidden value is NaN or infinite.
template <class Io>
void add_visible_values(const Strip& t, const KeyBlock<Io>& block, const Visibility& see, int64_t column,
                        int64_t head_dim) {
  for (int64_t r = 0; r < t.rows; ++r) {
    float* o = t.state.o + r * t.state.ldo;
    for (int64_t d = 0; d < t.state.ldo; ++d) o[d] = t.started ? o[d] * t.rescale[r] : 0.0f;
    const Range keys = intersect(see.of_row(t.first + r), {block.begin, block.end});
    for (int64_t j = keys.begin; j < keys.end; ++j) {
      const float p = element<kPerUnitOf<Io>>(t.scores + r * t.lds, j - block.begin - column);
      add_scaled(p, block.v_rows.row(j - block.begin), head_dim, o);
    }
  }
}

/// Returns whether the strip sees any key of the block; if not, nothing has changed.
template <class Io>
bool attend(const Strip& t, const KeyBlock<Io>& block, const Visibility& see, float log2_scale, int64_t head_dim) {
  constexpr int kPerUnit = kPerUnitOf<Io>;
  const Range keys = intersect(see.of_rows(t.first, t.first + t.rows), {block.begin, block.end});
  if (keys.empty()) return false;
  // Columns count from the block's start; those before the first vector with a visible key are left out.
  const int64_t column = (keys.begin - block.begin) / kLanes * kLanes;
  const int64_t columns = keys.end - block.begin - column;
  const int64_t vectors = (columns + kLanes - 1) / kLanes;
  multiply<kPerUnit, false>({.a = t.q,
                             .lda = t.ldq,
                             .b = block.k + column,
                             .ldb = block.ldk,
                             .c = t.scores,
                             .ldc = t.lds,
                             .rows = t.rows,
                             .vectors = vectors,
                             .depth = head_dim / kPerUnit});
  softmax_strip<kPerUnit>(t, {block.begin, block.end}, see, column, vectors, log2_scale);
  if (!block.v_finite && see.limited) {
    add_visible_values(t, block, see, column, head_dim);
    return true;
  }
  multiply<kPerUnit, false>({.a = t.scores,
                             .lda = t.lds,
                             .b = block.v + column / kPerUnit * block.ldv,
                             .ldb = block.ldv,
                             .c = t.state.o,
                             .ldc = t.state.ldo,
                             .rows = t.rows,
                             .vectors = t.state.ldo / kLanes,
                             .depth = (columns + kPerUnit - 1) / kPerUnit,
                             .add = t.started,
                             .row_factor = t.rescale});
  return true;
}

/// softmax_lse of rows: scale * max + log(sum); -inf where the row sees no key. sums: [rows], each row's sum.
inline void write_lse(const float* max_, const float* sums, int64_t rows, float scale, float* lse) {
  for (int64_t i = 0; i < rows; i += kLanes) {
    const int count = static_cast<int>(rows - i);
    const F32 m = load_n(max_ + i, count);
    // m - m is 0, or NaN where the scores of a row are infinite: exp(s - m) is undefined then.
    const F32 sum = add(load_n(sums + i, count), sub(m, m));
    const F32 finite_log = log(sum);
    store_n(lse + i, fma(m, set1(scale), select(less(sum, set1(__builtin_inff())), finite_log, sum)), count);
  }
}

}  // namespace strobe::cpu::STROBE_ISA
