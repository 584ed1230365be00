// What every attention operator asks of its arguments, and the sizes of a call that has passed.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/attention.h"
#include "ops/attn_type.h"
#include "ops/options.h"

namespace strobe::ops {

/// Checks everything that needs no tensor's values, also on symbolic shapes. Throws c10::Error naming the operator's
/// argument, what was expected and what was found. Returns the type.
AttnType check_attention(const AttentionOptions& options, const at::Tensor& q, const at::Tensor& k,
                         const at::Tensor& v);

/// grad_out like q, grad_softmax_lse like the LSE of q.
void check_gradients(const AttentionOptions& options, const at::Tensor& grad_out,
                     const OptionalTensor& grad_softmax_lse, const at::Tensor& q);

bool is_varlen(const AttentionOptions& options);

/// The sizes of a checked call, with their meanings in strobe/attention.h.
struct AttentionSizes {
  bool varlen = false;
  int64_t batch = 0, seqlen_q = 0, seqlen_k = 0, total_q = 0, total_k = 0;
  int64_t num_heads_q = 0, num_heads_k = 0, head_dim = 0;
};

/// Varlen: the lengths are max_seqlen_q and max_seqlen_k; on the CPU derived from cu_seqlens where absent, elsewhere
/// required, because reading them would synchronise.
AttentionSizes attention_sizes(const AttentionOptions& options, const at::Tensor& q, const at::Tensor& k);

/// cu_seqlens on the CPU: from 0, non-decreasing, no sequence longer than the lengths of `sizes`, within the tensors.
/// Their values on other devices are not read.
void check_cu_seqlens(const AttentionOptions& options, const AttentionSizes& sizes);

/// softmax_scale, or 1/sqrt(D) where absent.
double softmax_scale(const AttentionOptions& options, int64_t head_dim);

/// [B, Hq, Nq], varlen [Hq, total_q].
c10::SymDimVector lse_shape(const at::Tensor& q);

/// double for double q, which only dotscale takes; else float.
at::ScalarType lse_dtype(const at::Tensor& q);

/// The query, key and value heads of a packed tensor [.., heads, D] as views of it; Hk is half of what num_heads_q
/// leaves.
std::array<at::Tensor, 3> split_qkv(const at::Tensor& qkv, int64_t num_heads_q);
std::array<at::Tensor, 2> split_kv(const at::Tensor& kv);

}  // namespace strobe::ops
