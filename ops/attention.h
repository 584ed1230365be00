// The public attention operators as C++ functions. They go through the dispatcher, so autograd, autocast and the
// device's kernel apply; the same operators are torch.ops.strobe.* in Python.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>

#include <optional>
#include <string>
#include <tuple>

namespace strobe::ops {

/// The keyword arguments of strobe::attention; semantics as in strobe/attention.h.
struct AttentionOptions {
  std::string attn_type = "imp_flash_attn";  // "dotscale", "flash_attn" or "imp_flash_attn"
  std::optional<double> softmax_scale;       // null: 1/sqrt(D)
  bool causal = false;
  int64_t window_left = -1;
  int64_t window_right = -1;
  std::optional<at::Tensor> key_lengths;    // [B] int32
  std::optional<at::Tensor> query_lengths;  // [B] int32
  std::optional<at::Tensor> cu_seqlens_q;   // [B+1] int32
  std::optional<at::Tensor> cu_seqlens_k;   // [B+1] int32
  std::optional<c10::SymInt> max_seqlen_q;
  std::optional<c10::SymInt> max_seqlen_k;
  double dropout_p = 0.0;
  bool deterministic = false;
  bool return_lse = false;
  std::optional<at::Tensor> rng_state;  // [2] int64 {seed, offset}; null: drawn from torch's generator if dropout_p > 0
};

#pragma GCC visibility push(default)

/// q [B, Nq, Hq, D], k and v [B, Nk, Hk, D] (varlen: [total, H, D]) -> out like q, softmax_lse [B, Hq, Nq] ([Hq,
/// total_q]) fp32, or empty unless asked for. Throws c10::Error naming the argument, what was expected and what was
/// found.
std::tuple<at::Tensor, at::Tensor> attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                             const AttentionOptions& options);

/// qkv [B, N, Hq + 2 Hk, D] (varlen: [total, Hq + 2 Hk, D]); the gradient is one packed tensor.
std::tuple<at::Tensor, at::Tensor> attention_qkvpacked(const at::Tensor& qkv, int64_t num_heads_q,
                                                       const AttentionOptions& options);

/// kv [B, Nk, 2 Hk, D] (varlen: [total_k, 2 Hk, D]); its gradient is one packed tensor.
std::tuple<at::Tensor, at::Tensor> attention_kvpacked(const at::Tensor& q, const at::Tensor& kv,
                                                      const AttentionOptions& options);

/// What the flash types run on where tensors are the CPU's: "generic", "avx2", "avx512" or "avx512_bf16".
std::string cpu_instruction_set();

#pragma GCC visibility pop

}  // namespace strobe::ops
