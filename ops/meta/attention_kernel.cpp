// Shapes and dtypes of the inner operators' results, for tracing and for tensors without data. Sizes may be symbolic.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/checks.h"
#include "ops/dotscale.h"
#include "ops/inner.h"

namespace strobe::ops {
namespace {

at::Tensor contiguous_like(const at::Tensor& t) { return at::empty_symint(t.sym_sizes(), t.options()); }

at::Tensor lse_meta(const AttentionOptions& options, AttnType type, const at::Tensor& q) {
  const auto tensor_options = q.options().dtype(lse_dtype(q));
  if (type == AttnType::kDotscale && !options.return_lse) return at::empty({0}, tensor_options);
  return at::empty_symint(lse_shape(q), tensor_options);
}

at::Tensor rng_meta(const AttentionOptions& options, const at::Tensor& q) {
  return at::empty({options.dropout_p > 0 ? 2 : 0}, q.options().dtype(at::kLong));
}

Tensor3 forward_meta(const AttentionOptions& options, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const AttnType type = check_attention(options, q, k, v);
  return {contiguous_like(q), lse_meta(options, type, q), rng_meta(options, q)};
}

Tensor3 backward_meta(const AttentionOptions& options, const at::Tensor& grad_out,
                      const OptionalTensor& grad_softmax_lse, const at::Tensor& q, const at::Tensor& k,
                      const at::Tensor& v, const at::Tensor&, const at::Tensor&) {
  check_attention(options, q, k, v);
  check_gradients(options, grad_out, grad_softmax_lse, q);
  return {contiguous_like(q), contiguous_like(k), contiguous_like(v)};
}

at::Tensor qkvpacked_backward_meta(const AttentionOptions& options, const at::Tensor& grad_out,
                                   const OptionalTensor& grad_softmax_lse, const at::Tensor& qkv, int64_t num_heads_q,
                                   const at::Tensor&, const at::Tensor&) {
  const auto [q, k, v] = split_qkv(qkv, num_heads_q);
  check_attention(options, q, k, v);
  check_gradients(options, grad_out, grad_softmax_lse, q);
  return contiguous_like(qkv);
}

Tensor2 kvpacked_backward_meta(const AttentionOptions& options, const at::Tensor& grad_out,
                               const OptionalTensor& grad_softmax_lse, const at::Tensor& q, const at::Tensor& kv,
                               const at::Tensor&, const at::Tensor&) {
  const auto [k, v] = split_kv(kv);
  check_attention(options, q, k, v);
  check_gradients(options, grad_out, grad_softmax_lse, q);
  return {contiguous_like(q), contiguous_like(kv)};
}

/// [B, Hq, Nq, Nk]
at::Tensor probs_meta(const AttentionOptions& options, const at::Tensor& q, const at::Tensor& k) {
  if (!is_varlen(options)) {
    return at::empty_symint({q.sym_size(0), q.sym_size(2), q.sym_size(1), k.sym_size(1)}, q.options());
  }
  TORCH_CHECK(options.max_seqlen_q && options.max_seqlen_k,
              "strobe::attention: max_seqlen_q and max_seqlen_k: expected ",
              "numbers, because dotscale's shapes depend on them, found None");
  const c10::SymInt batch = options.cu_seqlens_q->sym_size(0) - 1;
  return at::empty_symint({batch, q.sym_size(1), *options.max_seqlen_q, *options.max_seqlen_k}, q.options());
}

Tensor4 dotscale_forward_meta(const AttentionOptions& options, const at::Tensor& q, const at::Tensor& k,
                              const at::Tensor& v) {
  const AttnType type = check_attention(options, q, k, v);
  return {contiguous_like(q), lse_meta(options, type, q), probs_meta(options, q, k), rng_meta(options, q)};
}

Tensor3 dotscale_backward_meta(const AttentionOptions& options, const at::Tensor& grad_out,
                               const OptionalTensor& grad_softmax_lse, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const at::Tensor& probs) {
  backward_meta(options, grad_out, grad_softmax_lse, q, k, v, probs, probs);
  return {gradient_like(q), gradient_like(k), gradient_like(v)};
}

}  // namespace

TORCH_LIBRARY_IMPL(strobe, Meta, m) {
  m.impl("attention_forward", TORCH_FN(WithOptions<&forward_meta>::call));
  m.impl("attention_backward", TORCH_FN(WithOptions<&backward_meta>::call));
  m.impl("attention_qkvpacked_backward", TORCH_FN(WithOptions<&qkvpacked_backward_meta>::call));
  m.impl("attention_kvpacked_backward", TORCH_FN(WithOptions<&kvpacked_backward_meta>::call));
  m.impl("dotscale_forward", TORCH_FN(WithOptions<&dotscale_forward_meta>::call));
  m.impl("dotscale_backward", TORCH_FN(WithOptions<&dotscale_backward_meta>::call));
}

}  // namespace strobe::ops
