// The kernels of the inner operators, the same for every device that knows its Execution: choose dotscale or the kernel
// library, allocate what is returned. A device's folder says how its Execution comes about and registers them.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>

#include "ops/attention.h"
#include "ops/checks.h"
#include "ops/dotscale.h"
#include "ops/flash.h"
#include "ops/inner.h"

namespace strobe::ops {

/// kExecution: Execution(const at::Tensor&), called under the tensor's device guard.
template <auto kExecution>
struct DeviceKernels {
  static Tensor3 forward(const AttentionOptions& options, const at::Tensor& q, const at::Tensor& k,
                         const at::Tensor& v) {
    if (check_attention(options, q, k, v) == AttnType::kDotscale) {
      auto [out, softmax_lse, probs, rng_state] = dotscale_forward_kernel(options, q, k, v);
      return {out, softmax_lse, rng_state};
    }
    const c10::DeviceGuard guard(q.device());
    return flash_forward(kExecution(q), options, q, k, v);
  }

  static Tensor3 backward(const AttentionOptions& options, const at::Tensor& grad_out,
                          const OptionalTensor& grad_softmax_lse, const at::Tensor& q, const at::Tensor& k,
                          const at::Tensor& v, const at::Tensor& out, const at::Tensor& softmax_lse) {
    const Gradients gradients{at::empty(q.sizes(), q.options()), at::empty(k.sizes(), k.options()),
                              at::empty(v.sizes(), v.options())};
    backward_into(options, grad_out, grad_softmax_lse, q, k, v, out, softmax_lse, gradients);
    return {gradients.q, gradients.k, gradients.v};
  }

  static at::Tensor qkvpacked_backward(const AttentionOptions& options, const at::Tensor& grad_out,
                                       const OptionalTensor& grad_softmax_lse, const at::Tensor& qkv,
                                       int64_t num_heads_q, const at::Tensor& out, const at::Tensor& softmax_lse) {
    const auto [q, k, v] = split_qkv(qkv, num_heads_q);
    const at::Tensor grad = at::empty(qkv.sizes(), qkv.options());
    const auto [grad_q, grad_k, grad_v] = split_qkv(grad, num_heads_q);
    backward_into(options, grad_out, grad_softmax_lse, q, k, v, out, softmax_lse, {grad_q, grad_k, grad_v});
    return grad;
  }

  static Tensor2 kvpacked_backward(const AttentionOptions& options, const at::Tensor& grad_out,
                                   const OptionalTensor& grad_softmax_lse, const at::Tensor& q, const at::Tensor& kv,
                                   const at::Tensor& out, const at::Tensor& softmax_lse) {
    const auto [k, v] = split_kv(kv);
    const at::Tensor grad_q = at::empty(q.sizes(), q.options()), grad_kv = at::empty(kv.sizes(), kv.options());
    const auto [grad_k, grad_v] = split_kv(grad_kv);
    backward_into(options, grad_out, grad_softmax_lse, q, k, v, out, softmax_lse, {grad_q, grad_k, grad_v});
    return {grad_q, grad_kv};
  }

 private:
  static void backward_into(const AttentionOptions& options, const at::Tensor& grad_out,
                            const OptionalTensor& grad_softmax_lse, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const at::Tensor& out, const at::Tensor& softmax_lse,
                            const Gradients& gradients) {
    const AttnType type = check_attention(options, q, k, v);
    check_gradients(options, grad_out, grad_softmax_lse, q);
    if (type == AttnType::kDotscale) {
      const at::Tensor probs = std::get<2>(dotscale_forward_kernel(options, q, k, v));
      auto [grad_q, grad_k, grad_v] = dotscale_backward_kernel(options, grad_out, grad_softmax_lse, q, k, v, probs);
      gradients.q.copy_(grad_q);
      gradients.k.copy_(grad_k);
      gradients.v.copy_(grad_v);
      return;
    }
    const c10::DeviceGuard guard(q.device());
    flash_backward(kExecution(q), options, grad_out, grad_softmax_lse, q, k, v, out, softmax_lse, gradients);
  }
};

/// Registers them under `m`'s dispatch key.
template <auto kExecution, class Library>
void register_device_kernels(Library& m) {
  using Kernels = DeviceKernels<kExecution>;
  m.impl("attention_forward", TORCH_FN((WithOptions<&Kernels::forward>::call)));
  m.impl("attention_backward", TORCH_FN((WithOptions<&Kernels::backward>::call)));
  m.impl("attention_qkvpacked_backward", TORCH_FN((WithOptions<&Kernels::qkvpacked_backward>::call)));
  m.impl("attention_kvpacked_backward", TORCH_FN((WithOptions<&Kernels::kvpacked_backward>::call)));
}

}  // namespace strobe::ops
