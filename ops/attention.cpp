#include "ops/attention.h"

#include "ops/device_call.h"
#include "ops/inner.h"
#include "ops/options.h"
#include "strobe/attention.h"

namespace strobe::ops {

Tensor2 attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionOptions& options) {
  static const OptionsOp<Tensor2(const at::Tensor&, const at::Tensor&, const at::Tensor&)> op("strobe::attention");
  return op(options, q, k, v);
}

Tensor2 attention_qkvpacked(const at::Tensor& qkv, int64_t num_heads_q, const AttentionOptions& options) {
  static const OptionsOp<Tensor2(const at::Tensor&, int64_t)> op("strobe::attention_qkvpacked");
  return op(options, qkv, num_heads_q);
}

Tensor2 attention_kvpacked(const at::Tensor& q, const at::Tensor& kv, const AttentionOptions& options) {
  static const OptionsOp<Tensor2(const at::Tensor&, const at::Tensor&)> op("strobe::attention_kvpacked");
  return op(options, q, kv);
}

std::string cpu_instruction_set() {
  std::string name;
  translate_errors([&] { name = strobe::cpu_instruction_set(); });
  return name;
}

Tensor3 attention_forward(const AttentionOptions& options, const at::Tensor& q, const at::Tensor& k,
                          const at::Tensor& v) {
  static const OptionsOp<Tensor3(const at::Tensor&, const at::Tensor&, const at::Tensor&)> op(
      "strobe::attention_forward");
  return op(options, q, k, v);
}

Tensor3 attention_backward(const AttentionOptions& options, const at::Tensor& grad_out,
                           const OptionalTensor& grad_softmax_lse, const at::Tensor& q, const at::Tensor& k,
                           const at::Tensor& v, const at::Tensor& out, const at::Tensor& softmax_lse) {
  static const OptionsOp<Tensor3(const at::Tensor&, const OptionalTensor&, const at::Tensor&, const at::Tensor&,
                                 const at::Tensor&, const at::Tensor&, const at::Tensor&)>
      op("strobe::attention_backward");
  return op(options, grad_out, grad_softmax_lse, q, k, v, out, softmax_lse);
}

at::Tensor attention_qkvpacked_backward(const AttentionOptions& options, const at::Tensor& grad_out,
                                        const OptionalTensor& grad_softmax_lse, const at::Tensor& qkv,
                                        int64_t num_heads_q, const at::Tensor& out, const at::Tensor& softmax_lse) {
  static const OptionsOp<at::Tensor(const at::Tensor&, const OptionalTensor&, const at::Tensor&, int64_t,
                                    const at::Tensor&, const at::Tensor&)>
      op("strobe::attention_qkvpacked_backward");
  return op(options, grad_out, grad_softmax_lse, qkv, num_heads_q, out, softmax_lse);
}

Tensor2 attention_kvpacked_backward(const AttentionOptions& options, const at::Tensor& grad_out,
                                    const OptionalTensor& grad_softmax_lse, const at::Tensor& q, const at::Tensor& kv,
                                    const at::Tensor& out, const at::Tensor& softmax_lse) {
  static const OptionsOp<Tensor2(const at::Tensor&, const OptionalTensor&, const at::Tensor&, const at::Tensor&,
                                 const at::Tensor&, const at::Tensor&)>
      op("strobe::attention_kvpacked_backward");
  return op(options, grad_out, grad_softmax_lse, q, kv, out, softmax_lse);
}

Tensor4 dotscale_forward(const AttentionOptions& options, const at::Tensor& q, const at::Tensor& k,
                         const at::Tensor& v) {
  static const OptionsOp<Tensor4(const at::Tensor&, const at::Tensor&, const at::Tensor&)> op(
      "strobe::dotscale_forward");
  return op(options, q, k, v);
}

Tensor3 dotscale_backward(const AttentionOptions& options, const at::Tensor& grad_out,
                          const OptionalTensor& grad_softmax_lse, const at::Tensor& q, const at::Tensor& k,
                          const at::Tensor& v, const at::Tensor& probs) {
  static const OptionsOp<Tensor3(const at::Tensor&, const OptionalTensor&, const at::Tensor&, const at::Tensor&,
                                 const at::Tensor&, const at::Tensor&)>
      op("strobe::dotscale_backward");
  return op(options, grad_out, grad_softmax_lse, q, k, v, probs);
}

}  // namespace strobe::ops
