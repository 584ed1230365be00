// flash_attn forward: FlashAttention (arXiv 2205.14135), Algorithm 1. A task is one head; the keys are the outer loop
// and the queries the inner one, and O, max and sum of all rows wait in the workspace between the outer steps, O
// divided by the sum each time (line 12).
#pragma once

#include "src/attention/cpu/attention_fwd-inl.h"

namespace strobe::cpu::STROBE_ISA {

template <class Io>
class FlashAttnFwd {
 public:
  static constexpr int kPhases = 1;
  static int64_t shared_bytes(const AttentionFwdParams&) { return 0; }
  static int64_t tasks(const AttentionFwdParams& p, int) {
    return p.batch * p.num_heads_q + (p.cu_seqlens_q != nullptr ? p.num_heads_q : 0);
  }

  FlashAttnFwd(const AttentionFwdParams& p, void*, void* scratch) : p_(p), e_(p) {
    Arena arena(scratch);
    k_ = arena.floats(e_.packed_k());
    v_ = arena.floats(e_.packed_v());
    q_ = arena.floats(kFwdStripRows * e_.ld_head);
    state_ = {arena.floats(p.seqlen_q * e_.ld_head), e_.ld_head, arena.floats(p.seqlen_q),
              arena.floats(p.seqlen_q * kLanes)};
    lds_ = leading(e_.key_block);
    scores_ = arena.floats(kFwdStripRows * lds_);
    rescale_ = arena.floats(kFwdStripRows);
    ld_keep_ = keep_bytes(e_.key_block);
    keep_ = static_cast<uint8_t*>(arena.bytes(kFwdStripRows * ld_keep_));
    sums_ = arena.floats(p.seqlen_q);
    bytes_ = arena.used();
  }

  int64_t scratch_bytes() const { return bytes_; }

  void run(int, int64_t task) {
    const int64_t computed = p_.batch * p_.num_heads_q;
    if (task >= computed) return write_spare_tokens<Io>(p_, task - computed);
    const int64_t head = task % p_.num_heads_q;
    const Sequence s = sequence(p_, task / p_.num_heads_q);
    const Visibility see(p_, s);
    const Dropout drop = dropout(p_, s, head);
    state_.clear(s.end_q);
    set_zero(state_.o, s.end_q * state_.ldo);
    for (int64_t block = 0; block * kFwdKeyBlock < s.end_k; ++block) {
      const int64_t head_k = head / (p_.num_heads_q / p_.num_heads_k);
      const KeyBlock<Io> keys = pack_keys(p_, s, e_, head_k, block, see.limited, k_, v_);
      for (int64_t i = 0; i < s.end_q; i += strip_rows(see)) {
        update_rows(s, head, i, smaller(strip_rows(see), s.end_q - i), keys, see, drop);
      }
    }
    write_output<Io>(p_, s, head, 0, s.end_q, state_, see, drop.scale, true, sums_);
    write_hidden_rows<Io>(p_, s, head, s.end_q, s.num_q);
  }

 private:
  void update_rows(const Sequence& s, int64_t head, int64_t first, int64_t rows, const KeyBlock<Io>& keys,
                   const Visibility& see, const Dropout& drop) {
    if (intersect(see.of_rows(first, first + rows), {keys.begin, keys.end}).empty()) return;
    const Rows<Io> q{
        static_cast<const Io*>(p_.q) + s.q_offset(p_.q_batch_stride, p_.q_row_stride, p_.q_head_stride, head),
        p_.q_row_stride};
    pack_rows(q.from(first), rows, p_.head_dim, q_, e_.ld_head);
    if (drop.on) keep_rows(drop, first, rows, keys);
    const RowState state = state_.from(first);
    scale_rows(state, rows, false);
    attend(
        Strip{first, rows, q_, e_.ld_head, state, true, scores_, lds_, rescale_, drop.on ? keep_ : nullptr, ld_keep_},
        keys, see, p_.softmax_scale * kLog2E, p_.head_dim);
    scale_rows(state, rows, true);
  }

  /// O = O * sum or O / sum, where the sum is not 0.
  static void scale_rows(const RowState& state, int64_t rows, bool divide) {
    for (int64_t i = 0; i < rows; ++i) {
      const float sum = reduce_add(load(state.sum + i * kLanes));
      if (sum == 0.0f) continue;
      const F32 factor = set1(divide ? 1.0f / sum : sum);
      float* o = state.o + i * state.ldo;
      for (int64_t d = 0; d < state.ldo; d += kLanes) store(o + d, mul(load(o + d), factor));
    }
  }

  void keep_rows(const Dropout& drop, int64_t first, int64_t rows, const KeyBlock<Io>& keys) {
    keep_bits(drop, first, rows, keys.begin, keys.end - keys.begin, keep_, ld_keep_);
  }

  const AttentionFwdParams& p_;
  FwdExtents<Io> e_;
  float *k_, *v_, *q_, *scores_, *rescale_, *sums_;
  uint8_t* keep_;
  RowState state_;
  int64_t lds_, ld_keep_, bytes_;
};

}  // namespace strobe::cpu::STROBE_ISA
