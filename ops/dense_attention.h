// Attention on dense tensors that materialises S and P: what dotscale is made of.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/attention.h"
#include "ops/checks.h"
#include "ops/inner.h"
#include "ops/visibility.h"

namespace strobe::ops {

/// One dense call: q [B, Nq, Hq, D], k and v [B, Nk, Hk, D] with what is hidden cleared, folded, and the masks.
struct DenseCall {
  AttentionSizes sizes;
  Visibility visible;
  double scale;
  at::Tensor q, k, v;  // folded

  /// lengths_q and lengths_k: see visibility().
  DenseCall(const AttentionOptions& options, const AttentionSizes& s, const at::Tensor& q_dense,
            const at::Tensor& k_dense, const at::Tensor& v_dense, const at::Tensor& lengths_q,
            const at::Tensor& lengths_k);

  /// [B, Hq, Nq, Nk] <-> [B * Hk, G * Nq, Nk]
  at::Tensor by_head(const at::Tensor& x) const {
    return x.view({sizes.batch, sizes.num_heads_q, sizes.seqlen_q, sizes.seqlen_k});
  }
  at::Tensor folded(const at::Tensor& x) const {
    const int64_t group = sizes.num_heads_q / sizes.num_heads_k;
    return x.view({sizes.batch * sizes.num_heads_k, group * sizes.seqlen_q, sizes.seqlen_k});
  }
  /// [B, 1, Nq] for what has a value a row and head.
  at::Tensor hidden_rows_by_head() const { return visible.hidden_rows.unsqueeze(1); }
};

/// out [B, Nq, Hq, D], softmax_lse [B, Hq, Nq] or undefined, probs [B, Hq, Nq, Nk].
struct DenseForward {
  at::Tensor out, softmax_lse, probs;
};

DenseForward dense_forward(const AttentionOptions& options, const DenseCall& call, const at::Tensor& rng_state);

/// Gradients [B, N, H, D] from grad_out [B, Nq, Hq, D], the gradient of the LSE and P.
Tensor3 dense_backward(const AttentionOptions& options, const DenseCall& call, const at::Tensor& grad_out,
                       const OptionalTensor& grad_lse, const at::Tensor& probs);

}  // namespace strobe::ops
