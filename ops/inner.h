// The inner operators: what autograd, autocast and tracing are built from. Each function goes through the dispatcher.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

#include "ops/attention.h"
#include "ops/options.h"

namespace strobe::ops {

using Tensor2 = std::tuple<at::Tensor, at::Tensor>;
using Tensor3 = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Tensor4 = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

/// -> out, softmax_lse, rng_state ([2] int64 on q's device, or empty without dropout). softmax_lse is written by the
/// flash types always and by dotscale where options.return_lse.
Tensor3 attention_forward(const AttentionOptions& options, const at::Tensor& q, const at::Tensor& k,
                          const at::Tensor& v);

/// -> grad_q, grad_k, grad_v. options.rng_state must be the forward's where dropout_p > 0. dotscale computes the
/// probabilities anew (dotscale_backward takes the forward's).
Tensor3 attention_backward(const AttentionOptions& options, const at::Tensor& grad_out,
                           const OptionalTensor& grad_softmax_lse, const at::Tensor& q, const at::Tensor& k,
                           const at::Tensor& v, const at::Tensor& out, const at::Tensor& softmax_lse);

/// -> grad_qkv, one tensor like qkv [.., Hq + 2 Hk, D].
at::Tensor attention_qkvpacked_backward(const AttentionOptions& options, const at::Tensor& grad_out,
                                        const OptionalTensor& grad_softmax_lse, const at::Tensor& qkv,
                                        int64_t num_heads_q, const at::Tensor& out, const at::Tensor& softmax_lse);

/// -> grad_q, grad_kv like kv [.., 2 Hk, D].
Tensor2 attention_kvpacked_backward(const AttentionOptions& options, const at::Tensor& grad_out,
                                    const OptionalTensor& grad_softmax_lse, const at::Tensor& q, const at::Tensor& kv,
                                    const at::Tensor& out, const at::Tensor& softmax_lse);

/// -> out, softmax_lse (empty unless options.return_lse), probs [B, Hq, Nq, Nk] before dropout in q's dtype, rng_state.
/// Varlen: Nq and Nk are max_seqlen_q and max_seqlen_k.
Tensor4 dotscale_forward(const AttentionOptions& options, const at::Tensor& q, const at::Tensor& k,
                         const at::Tensor& v);

/// -> grad_q, grad_k, grad_v from the forward's probs.
Tensor3 dotscale_backward(const AttentionOptions& options, const at::Tensor& grad_out,
                          const OptionalTensor& grad_softmax_lse, const at::Tensor& q, const at::Tensor& k,
                          const at::Tensor& v, const at::Tensor& probs);

}  // namespace strobe::ops
