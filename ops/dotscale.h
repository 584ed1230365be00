// Attention that materialises S and P, out of ATen's operators, on any device: the baseline of the flash types, with
// the same semantics (strobe/attention.h). softmax(softmax_scale * Q K^T) V of Vaswani et al. 2017, arXiv 1706.03762,
// equation 1.
//
// It allocates S and P, [B, Hq, Nq, Nk] in q's dtype, in the forward, keeps P for the backward, and allocates dP and dS
// there; dropout adds its factors in fp32 and the dropped P, which the backward forms anew.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/attention.h"
#include "ops/inner.h"

namespace strobe::ops {

/// The kernel of the operator dotscale_forward.
Tensor4 dotscale_forward_kernel(const AttentionOptions& options, const at::Tensor& q, const at::Tensor& k,
                                const at::Tensor& v);

/// The kernel of the operator dotscale_backward. Its gradients have gradient_like's strides: dense ones lie as the
/// matrix products leave them, [B, H, N, D] in memory.
Tensor3 dotscale_backward_kernel(const AttentionOptions& options, const at::Tensor& grad_out,
                                 const OptionalTensor& grad_softmax_lse, const at::Tensor& q, const at::Tensor& k,
                                 const at::Tensor& v, const at::Tensor& probs);

/// An uninitialised gradient of `t`, [B, N, H, D] or [total, H, D].
at::Tensor gradient_like(const at::Tensor& t);

}  // namespace strobe::ops
