// Shapes and dtypes of the results of ops/pointwise.h's inner operators. Sizes may be symbolic.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "ops/pointwise_inner.h"

namespace strobe::ops {
namespace {

at::Tensor contiguous_like(const at::Tensor& t) { return at::empty_symint(t.sym_sizes(), t.options()); }
at::Tensor none_like(const at::Tensor& t) { return at::empty({0}, t.options()); }

Tensor5 layer_norm_forward_meta(const at::Tensor& input, const at::Tensor&, const at::Tensor&, double,
                                const OptionalTensor&, const OptionalTensor& residual, double dropout_p) {
  const auto statistics = input.options().dtype(input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  const c10::SymInt rows = input.sym_numel() / input.sym_size(-1);
  return {residual ? contiguous_like(input) : none_like(input), contiguous_like(input),
          at::empty_symint({rows}, statistics), at::empty_symint({rows}, statistics),
          at::empty({dropout_p > 0 ? 2 : 0}, input.options().dtype(at::kLong))};
}

Tensor5 layer_norm_backward_meta(const at::Tensor&, const OptionalTensor&, const at::Tensor& sum, const at::Tensor&,
                                 const at::Tensor&, const at::Tensor& weight, double dropout_p, const at::Tensor&) {
  return {contiguous_like(sum), dropout_p > 0.0 ? contiguous_like(sum) : none_like(sum), contiguous_like(weight),
          contiguous_like(weight), contiguous_like(weight)};
}

at::Tensor bias_activation_forward_meta(const at::Tensor& input, const at::Tensor&, std::string_view) {
  return contiguous_like(input);
}

std::tuple<at::Tensor, at::Tensor> bias_activation_backward_meta(const at::Tensor&, const at::Tensor& input,
                                                                 const at::Tensor& bias, std::string_view) {
  return {contiguous_like(input), contiguous_like(bias)};
}

}  // namespace

TORCH_LIBRARY_IMPL(strobe, Meta, m) {
  m.impl("layer_norm_forward", TORCH_FN(layer_norm_forward_meta));
  m.impl("layer_norm_backward", TORCH_FN(layer_norm_backward_meta));
  m.impl("bias_activation_forward", TORCH_FN(bias_activation_forward_meta));
  m.impl("bias_activation_backward", TORCH_FN(bias_activation_backward_meta));
}

}  // namespace strobe::ops
