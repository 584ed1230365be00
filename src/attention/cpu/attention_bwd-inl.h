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
  GradQueries<Io> block(const GradTensors<Io>& from, int64_t head, int64_t first, int64_t rows, int64_t at,
                        float* grad_q) const {
    return {first,
            rows,
            q + at * ld,
            grad_out + at * ld,
            q_rows + at / kPerUnitOf<Io> * ld,
            grad_out_rows + at / kPerUnitOf<Io> * ld,
            from.q(head).from(first),
            from.grad_out(head).from(first),
            from.p.softmax_lse + lse_offset(from.p, from.s, head) + first,
            delta + at,
            grad_q};
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

/// Rounds the sums of rows [first, last) of one query head into grad_q; sum is row `first`'s.
template <class Io>
void write_grad_q(const GradTensors<Io>& to, int64_t head, int64_t first, int64_t last, const float* sum, int64_t ld) {
  const AttentionBwdParams& p = to.p;
  write_rows(sum, ld, p.softmax_scale, last - first, p.head_dim, to.grad_q(head) + first * p.grad_q_row_stride,
             p.grad_q_row_stride);
}

/// Zeros for the rows of one query head that are not computed.
template <class Io>
void write_hidden_queries(const GradTensors<Io>& to, int64_t head) {
  const AttentionBwdParams& p = to.p;
  write_zero_rows(to.grad_q(head) + to.s.end_q * p.grad_q_row_stride, p.grad_q_row_stride, to.s.num_q - to.s.end_q,
                  p.head_dim);
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

/// How many keys a sequence with `keys` of them takes at a time. dQ is the sum, in order, of what each chunk adds; that
/// sum is the same whether one worker has done all chunks or each has done its own.
inline int64_t key_chunk(int64_t keys) {
  const int64_t of_most_chunks = (keys + kBwdMostChunks - 1) / kBwdMostChunks;
  return larger(kBwdKeyChunk, round_up(of_most_chunks, kBwdKeyBlock));
}
/// At least 1, so that dQ gets written.
inline int64_t key_chunks(int64_t keys) { return larger(1, (keys + key_chunk(keys) - 1) / key_chunk(keys)); }

template <class Io>
class ImpFlashAttnBwd {
 public:
  static constexpr int kPhases = 2;

  static int64_t tasks(const AttentionBwdParams& p, int phase) {
    const bool split = splits(p);
    if (phase == 1) return split ? p.batch * p.num_heads_q * row_blocks(p) : 0;
    const int64_t spare = p.cu_seqlens_q != nullptr ? p.num_heads_q : 0;
    return p.batch * p.num_heads_k * (split ? most_chunks(p) : 1) + spare;
  }

  static int64_t shared_bytes(const AttentionBwdParams& p) {
    if (!splits(p)) return 0;
    const int64_t floats = p.batch * p.num_heads_q * most_chunks(p) * p.seqlen_q * round_up(p.head_dim, kLanes);
    return floats * static_cast<int64_t>(sizeof(float));
  }

  ImpFlashAttnBwd(const AttentionBwdParams& p, void* shared, void* scratch)
      : p_(p),
        ld_(round_up(p.head_dim, kLanes)),
        group_(p.num_heads_q / p.num_heads_k),
        split_(splits(p)),
        partial_(static_cast<float*>(shared)) {
    Arena arena(scratch);
    const int64_t chunk = smaller(key_chunk(p.seqlen_k), round_up(p.seqlen_k, kBwdKeyBlock));
    queries_ = PackedQueries<Io>::take(arena, p.seqlen_q, ld_);
    keys_ = PackedKeys<Io>::take(arena, p.head_dim, ld_);
    grad_k_ = arena.floats(chunk * ld_);
    grad_v_ = arena.floats(chunk * ld_);
    tile_ = GradScratch::take<Io>(arena);
    grad_q_ = arena.floats(split_ ? 0 : p.seqlen_q * ld_);
    total_ = arena.floats(split_ || most_chunks(p) == 1 ? 0 : group_ * p.seqlen_q * ld_);
    bytes_ = arena.used();
  }

  int64_t scratch_bytes() const { return bytes_; }

  void run(int phase, int64_t task) {
    if (phase == 1) return reduce(task);
    const int64_t chunks = split_ ? most_chunks(p_) : 1, computed = p_.batch * p_.num_heads_k * chunks;
    if (task >= computed) return write_spare_gradients<Io>(p_, task - computed);
    const int64_t pair = task / chunks, head_k = pair % p_.num_heads_k;
    const Sequence s = sequence(p_, pair / p_.num_heads_k);
    const GradTensors<Io> tensors{p_, s};
    const int64_t chunk = balanced(task % chunks, chunks);
    if (!split_) {
      add_all_chunks(tensors, head_k);
    } else if (chunk < key_chunks(s.end_k)) {
      add_chunk(tensors, head_k, chunk);
    }
    if (chunk > 0) return;
    write_hidden_keys(tensors, head_k);
    for (int64_t g = 0; g < group_; ++g) write_hidden_queries(tensors, head_k * group_ + g);
  }

 private:
  static constexpr int64_t kReducedRows = 64;

  /// Whether a head's chunks go to different workers: with few heads, not to leave workers idle.
  static bool splits(const AttentionBwdParams& p) {
    return p.batch * p.num_heads_k < 2 * p.num_threads && p.num_threads > 1 && most_chunks(p) > 1;
  }
  static int64_t most_chunks(const AttentionBwdParams& p) {
    return larger(1, smaller(kBwdMostChunks, (p.seqlen_k + kBwdKeyChunk - 1) / kBwdKeyChunk));
  }
  static int64_t row_blocks(const AttentionBwdParams& p) { return (p.seqlen_q + kReducedRows - 1) / kReducedRows; }

  float* partial(const Sequence& s, int64_t head, int64_t chunk) const {
    return partial_ + ((s.index * p_.num_heads_q + head) * most_chunks(p_) + chunk) * p_.seqlen_q * ld_;
  }

  void add_all_chunks(const GradTensors<Io>& tensors, int64_t head_k) {
    const int64_t chunks = key_chunks(tensors.s.end_k);
    for (int64_t chunk = 0; chunk < chunks; ++chunk) add_chunk(tensors, head_k, chunk);
    for (int64_t g = 0; chunks > 1 && g < group_; ++g) {
      write_grad_q(tensors, head_k * group_ + g, 0, tensors.s.end_q, total_ + g * p_.seqlen_q * ld_, ld_);
    }
  }

  void add_chunk(const GradTensors<Io>& tensors, int64_t head_k, int64_t chunk) {
    const Sequence& s = tensors.s;
    const int64_t size = key_chunk(s.end_k), chunks = key_chunks(s.end_k);
    const Range keys{smaller(chunk * size, s.end_k), smaller((chunk + 1) * size, s.end_k)};
    set_zero(grad_k_, (keys.end - keys.begin) * ld_);
    set_zero(grad_v_, (keys.end - keys.begin) * ld_);
    float keep_scale = 1.0f;
    for (int64_t g = 0; g < group_; ++g) {
      const int64_t head = head_k * group_ + g;
      const Dropout drop = dropout(p_, s, head);
      keep_scale = drop.scale;
      float* grad_q = split_ ? partial(s, head, chunk) : grad_q_;
      add_head(tensors, head, head_k, keys, drop, grad_q);
      if (split_) continue;
      if (chunks == 1) {
        write_grad_q(tensors, head, 0, s.end_q, grad_q, ld_);
      } else {
        add_rows(grad_q, s.end_q * ld_, chunk == 0, total_ + g * p_.seqlen_q * ld_);
      }
    }
    write_grad_kv(tensors, head_k, keys.begin, keys.end, grad_k_, grad_v_, ld_, keep_scale);
  }

  /// Adds what the keys of one chunk give, to grad_k_ and grad_v_ and as the whole of grad_q.
  void add_head(const GradTensors<Io>& tensors, int64_t head, int64_t head_k, Range chunk, const Dropout& drop,
                float* grad_q) {
    const Sequence& s = tensors.s;
    const Visibility see(p_, s);
    set_zero(grad_q, s.end_q * ld_);
    queries_.pack(tensors, head, 0, s.end_q, 0);
    const int64_t step = query_block(see);
    for (int64_t begin = chunk.begin; begin < chunk.end; begin += kBwdKeyBlock) {
      const int64_t end = smaller(begin + kBwdKeyBlock, chunk.end), at = (begin - chunk.begin) * ld_;
      const GradKeys<Io> keys = keys_.pack(tensors, head_k, begin, end, see.limited, grad_k_ + at, grad_v_ + at);
      for (int64_t i = 0; i < s.end_q; i += step) {
        const auto queries = queries_.block(tensors, head, i, smaller(step, s.end_q - i), i, grad_q + i * ld_);
        add_gradients(queries, keys, tile_, see, p_.softmax_scale, drop, p_.head_dim, ld_);
      }
    }
  }

  static void add_rows(const float* from, int64_t count, bool first, float* to) {
    for (int64_t i = 0; i < count; i += kLanes)
      store(to + i, first ? load(from + i) : add(load(to + i), load(from + i)));
  }

  /// dQ of a block of rows from the chunks' parts.
  void reduce(int64_t task) {
    const int64_t blocks = row_blocks(p_), pair = task / blocks, head = pair % p_.num_heads_q;
    const Sequence s = sequence(p_, pair / p_.num_heads_q);
    const int64_t first = task % blocks * kReducedRows, last = smaller(first + kReducedRows, s.end_q);
    if (first >= last) return;
    const int64_t count = (last - first) * ld_;
    float* sum = partial(s, head, 0) + first * ld_;
    for (int64_t chunk = 1; chunk < key_chunks(s.end_k); ++chunk) {
      add_rows(partial(s, head, chunk) + first * ld_, count, false, sum);
    }
    write_grad_q(GradTensors<Io>{p_, s}, head, first, last, sum, ld_);
  }

  const AttentionBwdParams& p_;
  int64_t ld_, group_, bytes_;
  bool split_;
  PackedQueries<Io> queries_;
  PackedKeys<Io> keys_;
  GradScratch tile_;
  float *partial_, *grad_q_, *total_, *grad_k_, *grad_v_;
};

}  // namespace strobe::cpu::STROBE_ISA
