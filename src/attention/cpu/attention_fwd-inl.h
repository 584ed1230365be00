// imp_flash_attn forward: FlashAttention-2 (arXiv 2307.08691), Algorithm 1. A task is one block of queries of one head;
// its keys pass by in blocks. A worker packs the keys of a head once, for all of that head's tasks that it runs.
#pragma once

#include "src/attention/cpu/config.h"
#include "src/attention/cpu/online_softmax-inl.h"
#include "strobe/attention.h"

namespace strobe::cpu::STROBE_ISA {

/// The extents that size a forward call's buffers.
template <class Io>
struct FwdExtents {
  int64_t units, ld_head, key_block, key_blocks, ldk, query_block, query_blocks;

  explicit FwdExtents(const AttentionFwdParams& p)
      : units(p.head_dim / kPerUnitOf<Io>),
        ld_head(round_up(p.head_dim, kLanes)),
        key_block(smaller(kFwdKeyBlock, round_up(p.seqlen_k, kLanes))),
        key_blocks((p.seqlen_k + kFwdKeyBlock - 1) / kFwdKeyBlock),
        ldk(leading(key_block)),
        query_block(smaller(kFwdQueryBlock, round_up(p.seqlen_q, 16))),
        query_blocks((p.seqlen_q + kFwdQueryBlock - 1) / kFwdQueryBlock) {}

  int64_t packed_k() const { return units * ldk; }
  int64_t packed_v() const { return (key_block + 1) / kPerUnitOf<Io> * ld_head; }
};

template <class Io>
KeyBlock<Io> pack_keys(const AttentionFwdParams& p, const Sequence& s, const FwdExtents<Io>& e, int64_t head_k,
                       int64_t block, bool limited, float* k, float* v) {
  const int64_t begin = block * kFwdKeyBlock, end = smaller(begin + kFwdKeyBlock, s.end_k);
  const Rows<Io> k_rows{
      static_cast<const Io*>(p.k) + s.k_offset(p.k_batch_stride, p.k_row_stride, p.k_head_stride, head_k),
      p.k_row_stride};
  const Rows<Io> v_rows{
      static_cast<const Io*>(p.v) + s.k_offset(p.v_batch_stride, p.v_row_stride, p.v_head_stride, head_k),
      p.v_row_stride};
  pack_transposed(k_rows.from(begin), end - begin, p.head_dim, k, e.ldk);
  pack_summed_rows(v_rows.from(begin), end - begin, p.head_dim, v, e.ld_head);
  const bool finite = !limited || rows_are_finite(v_rows.from(begin), end - begin, p.head_dim);
  return {begin, end, k, e.ldk, v, e.ld_head, v_rows.from(begin), finite};
}

/// The rows' outputs and LSE, from their final state. sums: scratch [rows].
template <class Io>
void write_output(const AttentionFwdParams& p, const Sequence& s, int64_t head, int64_t first_row, int64_t rows,
                  const RowState& state, const Visibility& see, float keep_scale, bool normalised, float* sums) {
  Io* out = static_cast<Io*>(p.out) + s.q_offset(p.out_batch_stride, p.out_row_stride, p.out_head_stride, head) +
            first_row * p.out_row_stride;
  float* lse = p.softmax_lse + lse_offset(p, s, head) + first_row;
  for (int64_t i = 0; i < rows; ++i) sums[i] = reduce_add(load(state.sum + i * kLanes));
  write_lse(state.max, sums, rows, p.softmax_scale, lse);
  for (int64_t i = 0; i < rows; ++i) {
    Io* row = out + i * p.out_row_stride;
    if (see.of_row(first_row + i).empty()) {
      write_zero_rows(row, 0, 1, p.head_dim);
      lse[i] = -__builtin_inff();
    } else {
      // A sum of 0 here means scores of -inf only: NaN, as softmax of such a row is.
      const float factor = normalised ? keep_scale * (sums[i] / sums[i]) : keep_scale / sums[i];
      write_rows(state.o + i * state.ldo, 0, factor, 1, p.head_dim, row, 0);
    }
  }
}

/// Rows [first, last) that are not computed.
template <class Io>
void write_hidden_rows(const AttentionFwdParams& p, const Sequence& s, int64_t head, int64_t first, int64_t last) {
  Io* out = static_cast<Io*>(p.out) + s.q_offset(p.out_batch_stride, p.out_row_stride, p.out_head_stride, head);
  write_zero_rows(out + first * p.out_row_stride, p.out_row_stride, last - first, p.head_dim);
  float* lse = p.softmax_lse + lse_offset(p, s, head);
  for (int64_t i = first; i < last; ++i) lse[i] = -__builtin_inff();
}

/// Varlen: the tokens of one head behind the last sequence.
template <class Io>
void write_spare_tokens(const AttentionFwdParams& p, int64_t head) {
  const int64_t end = p.cu_seqlens_q[p.batch];
  const Sequence spare{p.batch, true, end, 0, p.total_q - end, 0, 0, 0};
  write_hidden_rows<Io>(p, spare, head, 0, p.total_q - end);
}

template <class Io>
class ImpFlashAttnFwd {
 public:
  static constexpr int kPhases = 1;
  static int64_t shared_bytes(const AttentionFwdParams&) { return 0; }
  static int64_t tasks(const AttentionFwdParams& p, int) {
    const int64_t spare = p.cu_seqlens_q != nullptr ? p.num_heads_q : 0;
    return p.batch * p.num_heads_q * FwdExtents<Io>(p).query_blocks + spare;
  }

  ImpFlashAttnFwd(const AttentionFwdParams& p, void*, void* scratch) : p_(p), e_(p) {
    Arena arena(scratch);
    k_ = arena.floats(e_.key_blocks * e_.packed_k());
    v_ = arena.floats(e_.key_blocks * e_.packed_v());
    blocks_ = static_cast<KeyBlock<Io>*>(arena.bytes(e_.key_blocks * static_cast<int64_t>(sizeof(KeyBlock<Io>))));
    packed_ = static_cast<bool*>(arena.bytes(e_.key_blocks));
    q_ = arena.floats(e_.query_block * e_.ld_head);
    state_ = {arena.floats(e_.query_block * e_.ld_head), e_.ld_head, arena.floats(e_.query_block),
              arena.floats(e_.query_block * kLanes)};
    lds_ = leading(e_.key_block);
    scores_ = arena.floats(kFwdStripRows * lds_);
    rescale_ = arena.floats(e_.query_block);
    ld_keep_ = keep_bytes(e_.key_block);
    keep_ = static_cast<uint8_t*>(arena.bytes(e_.query_block * ld_keep_));
    bytes_ = arena.used();
  }

  int64_t scratch_bytes() const { return bytes_; }

  void run(int, int64_t task) {
    const int64_t computed = p_.batch * p_.num_heads_q * e_.query_blocks;
    if (task >= computed) return write_spare_tokens<Io>(p_, task - computed);
    const int64_t head = task / e_.query_blocks % p_.num_heads_q, b = task / (e_.query_blocks * p_.num_heads_q);
    const Sequence s = sequence(p_, b);
    const int64_t first = balanced(task % e_.query_blocks, e_.query_blocks) * kFwdQueryBlock;
    const int64_t last = smaller(first + kFwdQueryBlock, s.num_q), end = smaller(last, s.end_q);
    if (first < end) attend_rows(s, head, first, end);
    if (larger(first, end) < last) write_hidden_rows<Io>(p_, s, head, larger(first, s.end_q), last);
  }

 private:
  void attend_rows(const Sequence& s, int64_t head, int64_t first, int64_t last) {
    const Visibility see(p_, s);
    const Dropout drop = dropout(p_, s, head);
    const int64_t rows = last - first;
    const Rows<Io> q{
        static_cast<const Io*>(p_.q) + s.q_offset(p_.q_batch_stride, p_.q_row_stride, p_.q_head_stride, head),
        p_.q_row_stride};
    pack_rows(q.from(first), rows, p_.head_dim, q_, e_.ld_head);
    state_.clear(rows);
    const int64_t step = strip_rows(see);
    bool started[kFwdQueryBlock / kFwdLimitedStripRows] = {};
    const Range keys = see.of_rows(first, last);
    for (int64_t block = keys.begin / kFwdKeyBlock; block * kFwdKeyBlock < keys.end; ++block) {
      const KeyBlock<Io>& k = key_block(s, head / (p_.num_heads_q / p_.num_heads_k), block, see.limited);
      if (drop.on) keep_bits(drop, first, rows, k.begin, k.end - k.begin, keep_, ld_keep_);
      for (int64_t r = 0; r < rows; r += step) {
        const Strip strip{first + r,
                          smaller(step, rows - r),
                          q_ + r * e_.ld_head,
                          e_.ld_head,
                          state_.from(r),
                          started[r / step],
                          scores_,
                          lds_,
                          rescale_,
                          drop.on ? keep_ + r * ld_keep_ : nullptr,
                          ld_keep_};
        started[r / step] |= attend(strip, k, see, p_.softmax_scale * kLog2E, p_.head_dim);
      }
    }
    write_output<Io>(p_, s, head, first, rows, state_, see, drop.scale, false, rescale_);
  }

  const KeyBlock<Io>& key_block(const Sequence& s, int64_t head_k, int64_t block, bool limited) {
    const int64_t id = s.index * p_.num_heads_k + head_k;
    if (id != packed_id_) {
      packed_id_ = id;
      for (int64_t i = 0; i < e_.key_blocks; ++i) packed_[i] = false;
    }
    if (!packed_[block]) {
      packed_[block] = true;
      blocks_[block] =
          pack_keys(p_, s, e_, head_k, block, limited, k_ + block * e_.packed_k(), v_ + block * e_.packed_v());
    }
    return blocks_[block];
  }

  const AttentionFwdParams& p_;
  FwdExtents<Io> e_;
  float *k_, *v_, *q_, *scores_, *rescale_;
  KeyBlock<Io>* blocks_;
  bool* packed_;
  uint8_t* keep_;
  RowState state_;
  int64_t lds_, ld_keep_, bytes_;
  int64_t packed_id_ = -1;
};

}  // namespace strobe::cpu::STROBE_ISA
