#include "ops/dotscale.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/DeviceGuard.h>

#include <limits>

#include "ops/checks.h"
#include "ops/dense_attention.h"
#include "ops/rng.h"
#include "ops/varlen.h"

namespace strobe::ops {
namespace {

/// Varlen as a dense call on padded tensors.
struct PaddedCall {
  PaddedLayout layout_q, layout_k;
  DenseCall dense;

  PaddedCall(const AttentionOptions& o, const AttentionSizes& s, const at::Tensor& q, const at::Tensor& k,
             const at::Tensor& v)
      : layout_q(*o.cu_seqlens_q, s.total_q, s.seqlen_q),
        layout_k(*o.cu_seqlens_k, s.total_k, s.seqlen_k),
        dense(o, s, layout_q.pad(q), layout_k.pad(k), layout_k.pad(v), layout_q.lengths(), layout_k.lengths()) {}
};

bool has_no_pair(const AttentionSizes& s) { return s.batch == 0 || s.seqlen_q == 0 || s.seqlen_k == 0; }

}  // namespace

at::Tensor gradient_like(const at::Tensor& t) {
  if (t.dim() == 3) return at::empty_symint(t.sym_sizes(), t.options());
  return at::empty_symint({t.sym_size(0), t.sym_size(2), t.sym_size(1), t.sym_size(3)}, t.options()).transpose(1, 2);
}

Tensor4 dotscale_forward_kernel(const AttentionOptions& options, const at::Tensor& q, const at::Tensor& k,
                                const at::Tensor& v) {
  TORCH_CHECK(check_attention(options, q, k, v) == AttnType::kDotscale,
              "strobe::dotscale_forward: attn_type: expected ", "dotscale, found ", options.attn_type);
  const c10::DeviceGuard guard(q.device());
  const AttentionSizes s = attention_sizes(options, q, k);
  const at::Tensor rng_state = draw_rng_state(options, q);
  const auto lse_options = q.options().dtype(lse_dtype(q));
  const at::Tensor no_lse = at::empty({0}, lse_options);
  if (has_no_pair(s)) {
    const double nothing = -std::numeric_limits<double>::infinity();
    return {at::zeros_like(q, at::MemoryFormat::Contiguous),
            options.return_lse ? at::full_symint(lse_shape(q), nothing, lse_options) : no_lse,
            at::empty({s.batch, s.num_heads_q, s.seqlen_q, s.seqlen_k}, q.options()), rng_state};
  }
  if (!s.varlen) {
    const DenseForward f = dense_forward(options, DenseCall(options, s, q, k, v, {}, {}), rng_state);
    return {f.out.contiguous(), options.return_lse ? f.softmax_lse : no_lse, f.probs, rng_state};
  }
  check_cu_seqlens(options, s);
  const PaddedCall call(options, s, q, k, v);
  const DenseForward f = dense_forward(options, call.dense, rng_state);
  at::Tensor lse = no_lse;
  if (options.return_lse) {
    const double nothing = -std::numeric_limits<double>::infinity();
    lse = call.layout_q.unpad(f.softmax_lse.transpose(1, 2), nothing).t().contiguous();
  }
  return {call.layout_q.unpad(f.out, 0), lse, f.probs, rng_state};
}

Tensor3 dotscale_backward_kernel(const AttentionOptions& options, const at::Tensor& grad_out,
                                 const OptionalTensor& grad_softmax_lse, const at::Tensor& q, const at::Tensor& k,
                                 const at::Tensor& v, const at::Tensor& probs_given) {
  check_attention(options, q, k, v);
  check_gradients(options, grad_out, grad_softmax_lse, q);
  const c10::DeviceGuard guard(q.device());
  const AttentionSizes s = attention_sizes(options, q, k);
  const at::Tensor probs = probs_given.contiguous();
  if (has_no_pair(s)) return {gradient_like(q).zero_(), gradient_like(k).zero_(), gradient_like(v).zero_()};
  if (!s.varlen) {
    return dense_backward(options, DenseCall(options, s, q, k, v, {}, {}), grad_out, grad_softmax_lse, probs);
  }
  const PaddedCall call(options, s, q, k, v);
  OptionalTensor grad_lse;
  if (grad_softmax_lse) grad_lse = call.layout_q.pad(grad_softmax_lse->t()).transpose(1, 2);
  auto [grad_q, grad_k, grad_v] = dense_backward(options, call.dense, call.layout_q.pad(grad_out), grad_lse, probs);
  return {call.layout_q.unpad(grad_q, 0), call.layout_k.unpad(grad_k, 0), call.layout_k.unpad(grad_v, 0)};
}

}  // namespace strobe::ops
