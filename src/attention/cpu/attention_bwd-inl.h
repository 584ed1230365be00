// imp_flash_attn backward: FlashAttention-2 (arXiv 2307.08691), Algorithm 2: keys outside, queries inside. A task is
// one key/value head of one sequence with the query heads of its group.
#pragma once

#include "src/attention/cpu/gradient_tile-inl.h"
#include "strobe/attention.h"

namespace strobe::cpu::STROBE_ISA {

/// Tensors of a backward call as rows of one sequence and head.
template <class Io>
struct GradTensors {
  const AttentionBwdParams& p;
  const Sequence& s;

  Rows<Io> q(int64_t head) const {
    return {query(p.q, p.q_batch_stride, p.q_row_stride, p.q_head_stride, head), p.q_row_stride};
  }
  Rows<Io> out(int64_t head) const {
    return {query(p.out, p.out_batch_stride, p.out_row_stride, p.out_head_stride, head), p.out_row_stride};
  }
  Rows<Io> grad_out(int64_t head) const {
    return {query(p.grad_out, p.grad_out_batch_stride, p.grad_out_row_stride, p.grad_out_head_stride, head),
            p.grad_out_row_stride};
  }
  Rows<Io> k(int64_t head) const {
    return {key(p.k, p.k_batch_stride, p.k_row_stride, p.k_head_stride, head), p.k_row_stride};
  }
  Rows<Io> v(int64_t head) const {
    return {key(p.v, p.v_batch_stride, p.v_row_stride, p.v_head_stride, head), p.v_row_stride};
  }
  Io* grad_q(int64_t head) const {
    return static_cast<Io*>(p.grad_q) +
           s.q_offset(p.grad_q_batch_stride, p.grad_q_row_stride, p.grad_q_head_stride, head);
  }
  Io* grad_k(int64_t head) const {
    return static_cast<Io*>(p.grad_k) +
           s.k_offset(p.grad_k_batch_stride, p.grad_k_row_stride, p.grad_k_head_stride, head);
  }
  Io* grad_v(int64_t head) const {
    return static_cast<Io*>(p.grad_v) +
           s.k_offset(p.grad_v_batch_stride, p.grad_v_row_stride, p.grad_v_head_stride, head);
  }

 private:
  const Io* query(const void* base, int64_t batch, int64_t row, int64_t head_stride, int64_t head) const {
    return static_cast<const Io*>(base) + s.q_offset(batch, row, head_stride, head);
  }
  const Io* key(const void* base, int64_t batch, int64_t row, int64_t head_stride, int64_t head) const {
    return static_cast<const Io*>(base) + s.k_offset(batch, row, head_stride, head);
  }
};

/// Space for `rows` packed rows of queries and of the output's gradient.
template <class Io>
struct PackedQueries {
  int64_t ld;
  float *q, *grad_out, *q_rows, *grad_out_rows, *delta;

  static PackedQueries take(Arena& arena, int64_t rows, int64_t ld) {
    PackedQueries t{};
    t.ld = ld;
    t.q = arena.floats(rows * ld);
    t.grad_out = arena.floats(rows * ld);
    // Where a unit is one element, one form serves both kinds of product.
    t.q_rows = kPerUnitOf<Io> == 1 ? t.q : arena.floats((rows + 1) / 2 * ld);
    t.grad_out_rows = kPerUnitOf<Io> == 1 ? t.grad_out : arena.floats((rows + 1) / 2 * ld);
    t.delta = arena.floats(rows);
    return t;
  }

  /// Packs rows [first, first + rows) of the head; `at` is where they start here, even.
  void pack(const GradTensors<Io>& from, int64_t head, int64_t first, int64_t rows, int64_t at) const {
    const AttentionBwdParams& p = from.p;
    const Rows<Io> q_from = from.q(head).from(first), grad_from = from.grad_out(head).from(first);
    pack_rows(q_from, rows, p.head_dim, q + at * ld, ld);
    pack_rows(grad_from, rows, p.head_dim, grad_out + at * ld, ld);
    if constexpr (kPerUnitOf<Io> == 2) {
      pack_summed_rows(q_from, rows, p.head_dim, q_rows + at / 2 * ld, ld);
      pack_summed_rows(grad_from, rows, p.head_dim, grad_out_rows + at / 2 * ld, ld);
    }
    const Rows<Io> out = from.out(head).from(first);
    const float* grad_lse = p.grad_softmax_lse;
    if (grad_lse != nullptr) grad_lse += lse_offset(p, from.s, head) + first;
    for (int64_t i = 0; i < rows; ++i) {
      F32 sum = zero();
      for (int64_t d = 0; d < p.head_dim; d += kLanes) {
        const int count = static_cast<int>(p.head_dim - d);
        sum = fma(load_n(grad_from.row(i) + d, count), load_n(out.row(i) + d, count), sum);
      }
      delta[at + i] = reduce_add(sum) - (grad_lse != nullptr ? grad_lse[i] : 0.0f);
    }
  }

  /// The rows that were packed at `at`.
  GradQueries<Io> block(const GradTensors<Io>& from, int64_t head, int64_t first, int64_t rows, int64_t at, bool finite,
                        float* grad_q) const {
    return {first,
            rows,
            q + at * ld,
            grad_out + at * ld,
            q_rows + at / kPerUnitOf<Io> * ld,
            grad_out_rows + at / kPerUnitOf<Io> * ld,
            from.q(head).from(first),
            from.grad_out(head).from(first),
            finite,
            from.p.softmax_lse + lse_offset(from.p, from.s, head) + first,
            delta + at,
            grad_q};
  }

  static bool finite(const GradTensors<Io>& from, int64_t head, int64_t first, int64_t rows) {
    return rows_are_finite(from.q(head).from(first), rows, from.p.head_dim) &&
           rows_are_finite(from.grad_out(head).from(first), rows, from.p.head_dim);
  }
};

/// Space for one packed block of keys.
template <class Io>
struct PackedKeys {
  int64_t ldk, ld;
  float *k, *v, *k_rows;

  static PackedKeys take(Arena& arena, int64_t head_dim, int64_t ld) {
    PackedKeys t{};
    t.ldk = leading(kBwdKeyBlock);
    t.ld = ld;
    t.k = arena.floats(head_dim / kPerUnitOf<Io> * t.ldk);
    t.v = arena.floats(head_dim / kPerUnitOf<Io> * t.ldk);
    t.k_rows = arena.floats(kBwdKeyBlock / kPerUnitOf<Io> * ld);
    return t;
  }

  /// grad_k, grad_v: the sums of the keys from `begin` on.
  GradKeys<Io> pack(const GradTensors<Io>& from, int64_t head_k, int64_t begin, int64_t end, bool limited,
                    float* grad_k, float* grad_v) const {
    const Rows<Io> k_from = from.k(head_k).from(begin);
    pack_transposed(k_from, end - begin, from.p.head_dim, k, ldk);
    pack_transposed(from.v(head_k).from(begin), end - begin, from.p.head_dim, v, ldk);
    pack_summed_rows(k_from, end - begin, from.p.head_dim, k_rows, ld);
    const bool finite = !limited || rows_are_finite(k_from, end - begin, from.p.head_dim);
    return {begin, end, k, v, ldk, k_rows, k_from, finite, grad_k, grad_v};
  }
};

/// Varlen: the tokens of one head behind the last sequence.
template <class Io>
void write_spare_gradients(const AttentionBwdParams& p, int64_t head) {
  const int64_t q = p.cu_seqlens_q[p.batch], k = p.cu_seqlens_k[p.batch];
  const Sequence spare{p.batch, true, q, k, p.total_q - q, p.total_k - k, 0, 0};
  const GradTensors<Io> to{p, spare};
  write_zero_rows(to.grad_q(head), p.grad_q_row_stride, spare.num_q, p.head_dim);
  if (head >= p.num_heads_k) return;
  write_zero_rows(to.grad_k(head), p.grad_k_row_stride, spare.num_k, p.head_dim);
  write_zero_rows(to.grad_v(head), p.grad_v_row_stride, spare.num_k, p.head_dim);
}

/// Rounds the sums of one query head into grad_q, with zeros for the rows that were not computed.
template <class Io>
void write_grad_q(const GradTensors<Io>& to, int64_t head, const float* sum, int64_t ld) {
  const AttentionBwdParams& p = to.p;
  Io* grad_q = to.grad_q(head);
  write_rows(sum, ld, p.softmax_scale, to.s.end_q, p.head_dim, grad_q, p.grad_q_row_stride);
  write_zero_rows(grad_q + to.s.end_q * p.grad_q_row_stride, p.grad_q_row_stride, to.s.num_q - to.s.end_q, p.head_dim);
}

/// Rounds the sums of keys [begin, end) into grad_k and grad_v.
template <class Io>
void write_grad_kv(const GradTensors<Io>& to, int64_t head_k, int64_t begin, int64_t end, const float* grad_k,
                   const float* grad_v, int64_t ld, float keep_scale) {
  const AttentionBwdParams& p = to.p;
  write_rows(grad_k, ld, p.softmax_scale, end - begin, p.head_dim, to.grad_k(head_k) + begin * p.grad_k_row_stride,
             p.grad_k_row_stride);
  write_rows(grad_v, ld, keep_scale, end - begin, p.head_dim, to.grad_v(head_k) + begin * p.grad_v_row_stride,
             p.grad_v_row_stride);
}

/// Zeros for the keys that no row sees because they are padding.
template <class Io>
void write_hidden_keys(const GradTensors<Io>& to, int64_t head_k) {
  const AttentionBwdParams& p = to.p;
  const int64_t hidden = to.s.num_k - to.s.end_k;
  write_zero_rows(to.grad_k(head_k) + to.s.end_k * p.grad_k_row_stride, p.grad_k_row_stride, hidden, p.head_dim);
  write_zero_rows(to.grad_v(head_k) + to.s.end_k * p.grad_v_row_stride, p.grad_v_row_stride, hidden, p.head_dim);
}

inline int64_t bwd_tasks(const AttentionBwdParams& p) {
  return p.batch * p.num_heads_k + (p.cu_seqlens_q != nullptr ? p.num_heads_q : 0);
}

template <class Io>
class ImpFlashAttnBwd {
 public:
  static int64_t tasks(const AttentionBwdParams& p) { return bwd_tasks(p); }

  ImpFlashAttnBwd(const AttentionBwdParams& p, void* scratch) : p_(p), ld_(round_up(p.head_dim, kLanes)) {
    Arena arena(scratch);
    queries_ = PackedQueries<Io>::take(arena, p.seqlen_q, ld_);
    grad_q_ = arena.floats(p.seqlen_q * ld_);
    finite_ = static_cast<bool*>(arena.bytes((p.seqlen_q + kBwdQueryBlock - 1) / kBwdQueryBlock));
    keys_ = PackedKeys<Io>::take(arena, p.head_dim, ld_);
    grad_k_ = arena.floats(p.seqlen_k * ld_);
    grad_v_ = arena.floats(p.seqlen_k * ld_);
    tile_ = GradScratch::take<Io>(arena);
    bytes_ = arena.used();
  }

  int64_t scratch_bytes() const { return bytes_; }

  void run(int64_t task) {
    const int64_t computed = p_.batch * p_.num_heads_k;
    if (task >= computed) return write_spare_gradients<Io>(p_, task - computed);
    const int64_t head_k = task % p_.num_heads_k, group = p_.num_heads_q / p_.num_heads_k;
    const Sequence s = sequence(p_, task / p_.num_heads_k);
    const GradTensors<Io> tensors{p_, s};
    set_zero(grad_k_, s.end_k * ld_);
    set_zero(grad_v_, s.end_k * ld_);
    float keep_scale = 1.0f;
    for (int64_t head = head_k * group; head < (head_k + 1) * group; ++head) {
      const Dropout drop = dropout(p_, s, head);
      keep_scale = drop.scale;
      add_head(tensors, head, head_k, drop);
    }
    write_grad_kv(tensors, head_k, 0, s.end_k, grad_k_, grad_v_, ld_, keep_scale);
    write_hidden_keys(tensors, head_k);
  }

 private:
  void add_head(const GradTensors<Io>& tensors, int64_t head, int64_t head_k, const Dropout& drop) {
    const Sequence& s = tensors.s;
    const Visibility see(p_, s);
    queries_.pack(tensors, head, 0, s.end_q, 0);
    for (int64_t i = 0; i < s.end_q; i += kBwdQueryBlock) {
      const int64_t rows = smaller(kBwdQueryBlock, s.end_q - i);
      finite_[i / kBwdQueryBlock] = !see.limited || PackedQueries<Io>::finite(tensors, head, i, rows);
    }
    set_zero(grad_q_, s.end_q * ld_);
    for (int64_t begin = 0; begin < s.end_k; begin += kBwdKeyBlock) {
      const int64_t end = smaller(begin + kBwdKeyBlock, s.end_k);
      const GradKeys<Io> keys =
          keys_.pack(tensors, head_k, begin, end, see.limited, grad_k_ + begin * ld_, grad_v_ + begin * ld_);
      for (int64_t i = 0; i < s.end_q; i += kBwdQueryBlock) {
        const auto queries = queries_.block(tensors, head, i, smaller(kBwdQueryBlock, s.end_q - i), i,
                                            finite_[i / kBwdQueryBlock], grad_q_ + i * ld_);
        add_gradients(queries, keys, tile_, see, p_.softmax_scale, drop, p_.head_dim, ld_);
      }
    }
    write_grad_q(tensors, head, grad_q_, ld_);
  }

  const AttentionBwdParams& p_;
  int64_t ld_, bytes_;
  PackedQueries<Io> queries_;
  PackedKeys<Io> keys_;
  GradScratch tile_;
  float *grad_q_, *grad_k_, *grad_v_;
  bool* finite_;
};

}  // namespace strobe::cpu::STROBE_ISA
