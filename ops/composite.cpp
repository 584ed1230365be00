// Operators whose kernel is the same on every device: the public ones without autograd, and dotscale.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/checks.h"
#include "ops/dotscale.h"
#include "ops/inner.h"

namespace strobe::ops {
namespace {

Tensor2 attention_kernel(const AttentionOptions& options, const at::Tensor& q, const at::Tensor& k,
                         const at::Tensor& v) {
  auto [out, softmax_lse, rng_state] = attention_forward(options, q, k, v);
  if (!options.return_lse) softmax_lse = at::empty({0}, softmax_lse.options());
  return {out, softmax_lse};
}

Tensor2 qkvpacked_kernel(const AttentionOptions& options, const at::Tensor& qkv, int64_t num_heads_q) {
  const auto [q, k, v] = split_qkv(qkv, num_heads_q);
  return attention_kernel(options, q, k, v);
}

Tensor2 kvpacked_kernel(const AttentionOptions& options, const at::Tensor& q, const at::Tensor& kv) {
  const auto [k, v] = split_kv(kv);
  return attention_kernel(options, q, k, v);
}

}  // namespace

TORCH_LIBRARY_IMPL(strobe, CompositeExplicitAutograd, m) {
  m.impl("attention", TORCH_FN(WithOptions<&attention_kernel>::call));
  m.impl("attention_qkvpacked", TORCH_FN(WithOptions<&qkvpacked_kernel>::call));
  m.impl("attention_kvpacked", TORCH_FN(WithOptions<&kvpacked_kernel>::call));
  m.impl("dotscale_forward", TORCH_FN(WithOptions<&dotscale_forward_kernel>::call));
  m.impl("dotscale_backward", TORCH_FN(WithOptions<&dotscale_backward_kernel>::call));
}

}  // namespace strobe::ops
