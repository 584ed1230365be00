// flash_attn backward: FlashAttention (arXiv 2205.14135), Algorithm 4: keys outside, queries inside, every block of
// queries read and its D = rowsum(dO * O) computed anew at each step (line 19), dQ waiting in the workspace between the
// outer steps. A task is one key/value head of one sequence with the query heads of its group.
#pragma once

#include "src/attention/cpu/attention_bwd-inl.h"

namespace strobe::cpu::STROBE_ISA {

template <class Io>
class FlashAttnBwd {
 public:
  static constexpr int kPhases = 1;
  static int64_t shared_bytes(const AttentionBwdParams&) { return 0; }
  static int64_t tasks(const AttentionBwdParams& p, int) {
    return p.batch * p.num_heads_k + (p.cu_seqlens_q != nullptr ? p.num_heads_q : 0);
  }

  FlashAttnBwd(const AttentionBwdParams& p, void*, void* scratch)
      : p_(p), ld_(round_up(p.head_dim, kLanes)), group_(p.num_heads_q / p.num_heads_k) {
    Arena arena(scratch);
    queries_ = PackedQueries<Io>::take(arena, kBwdQueryBlock, ld_);
    keys_ = PackedKeys<Io>::take(arena, p.head_dim, ld_);
    grad_q_ = arena.floats(group_ * p.seqlen_q * ld_);
    grad_k_ = arena.floats(kBwdKeyBlock * ld_);
    grad_v_ = arena.floats(kBwdKeyBlock * ld_);
    tile_ = GradScratch::take<Io>(arena);
    bytes_ = arena.used();
  }

  int64_t scratch_bytes() const { return bytes_; }

  void run(int, int64_t task) {
    const int64_t computed = p_.batch * p_.num_heads_k;
    if (task >= computed) return write_spare_gradients<Io>(p_, task - computed);
    const int64_t head_k = task % p_.num_heads_k;
    const Sequence s = sequence(p_, task / p_.num_heads_k);
    const GradTensors<Io> tensors{p_, s};
    const Visibility see(p_, s);
    set_zero(grad_q_, group_ * s.end_q * ld_);
    for (int64_t begin = 0; begin < s.end_k; begin += kBwdKeyBlock) {
      const int64_t end = smaller(begin + kBwdKeyBlock, s.end_k);
      set_zero(grad_k_, (end - begin) * ld_);
      set_zero(grad_v_, (end - begin) * ld_);
      const GradKeys<Io> keys = keys_.pack(tensors, head_k, begin, end, see.limited, grad_k_, grad_v_);
      float keep_scale = 1.0f;
      for (int64_t g = 0; g < group_; ++g) {
        const Dropout drop = dropout(p_, s, head_k * group_ + g);
        keep_scale = drop.scale;
        add_rows(tensors, head_k * group_ + g, keys, see, drop, grad_q_ + g * s.end_q * ld_);
      }
      write_grad_kv(tensors, head_k, begin, end, grad_k_, grad_v_, ld_, keep_scale);
    }
    write_hidden_keys(tensors, head_k);
    for (int64_t g = 0; g < group_; ++g) {
      write_grad_q(tensors, head_k * group_ + g, 0, s.end_q, grad_q_ + g * s.end_q * ld_, ld_);
      write_hidden_queries(tensors, head_k * group_ + g);
    }
  }

 private:
  void add_rows(const GradTensors<Io>& tensors, int64_t head, const GradKeys<Io>& keys, const Visibility& see,
                const Dropout& drop, float* grad_q) {
    const int64_t end_q = tensors.s.end_q, step = query_block(see);
    for (int64_t i = 0; i < end_q; i += step) {
      const int64_t rows = smaller(step, end_q - i);
      if (intersect(see.of_rows(i, i + rows), {keys.begin, keys.end}).empty()) continue;
      queries_.pack(tensors, head, i, rows, 0);
      add_gradients(queries_.block(tensors, head, i, rows, 0, grad_q + i * ld_), keys, tile_, see, p_.softmax_scale,
                    drop, p_.head_dim, ld_);
    }
  }

  const AttentionBwdParams& p_;
  int64_t ld_, group_, bytes_;
  PackedQueries<Io> queries_;
  PackedKeys<Io> keys_;
  GradScratch tile_;
  float *grad_q_, *grad_k_, *grad_v_;
};

}  // namespace strobe::cpu::STROBE_ISA
