#include "ops/pointwise.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <string>
#include <vector>

#include "ops/pointwise_inner.h"

namespace strobe::ops {
namespace {

template <class Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

void check_vector(const char* operation, const char* name, const at::Tensor& t, const at::Tensor& input) {
  TORCH_CHECK(t.dim() == 1 && t.size(0) == input.size(-1), "strobe::", operation, ": ", name, ": expected [",
              input.size(-1), "], found ", t.sizes());
}

}  // namespace

bool fuses_bias_activation(const at::Tensor& x) {
  const bool is_16_bit = x.scalar_type() == at::kHalf || x.scalar_type() == at::kBFloat16;
  return x.is_cuda() && is_16_bit && x.dim() > 0 && x.size(-1) > 0 && x.size(-1) % kPointwiseVector == 0;
}

bool fuses_layer_norm(const at::Tensor& x) { return fuses_bias_activation(x) && x.size(-1) <= kLayerNormMaxWidth; }

Activation parse_activation(std::string_view name) {
  TORCH_CHECK(name == "gelu" || name == "quick_gelu",
              "strobe::bias_activation: activation: expected gelu or quick_gelu, found \"", name, "\"");
  return name == "gelu" ? Activation::kGelu : Activation::kQuickGelu;
}

void check_layer_norm(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                      const OptionalTensor& input_bias, const OptionalTensor& residual, double dropout_p) {
  TORCH_CHECK(input.dim() > 0, "strobe::layer_norm: input: expected at least one dimension, found none");
  check_vector("layer_norm", "weight", weight, input);
  check_vector("layer_norm", "bias", bias, input);
  if (input_bias) check_vector("layer_norm", "input_bias", *input_bias, input);
  TORCH_CHECK(!residual || (residual->sizes() == input.sizes() && residual->scalar_type() == input.scalar_type()),
              "strobe::layer_norm: residual: expected ", input.sizes(), " of ", input.scalar_type(), ", found ",
              residual->sizes(), " of ", residual->scalar_type());
  TORCH_CHECK(residual || (!input_bias && dropout_p == 0.0),
              "strobe::layer_norm: residual: expected one with input_bias or dropout, found None");
  TORCH_CHECK(dropout_p >= 0.0 && dropout_p < 1.0, "strobe::layer_norm: dropout_p: expected 0 <= p < 1, found ",
              dropout_p);
}

void check_bias_activation(const at::Tensor& input, const at::Tensor& bias) {
  TORCH_CHECK(input.dim() > 0, "strobe::bias_activation: input: expected at least one dimension, found none");
  check_vector("bias_activation", "bias", bias, input);
}

std::tuple<at::Tensor, at::Tensor> layer_norm(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                                              double eps, const OptionalTensor& input_bias,
                                              const OptionalTensor& residual, double dropout_p) {
  static const auto op =
      find<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&, const at::Tensor&, double,
                                              const OptionalTensor&, const OptionalTensor&, double)>(
          "strobe::layer_norm");
  return op.call(input, weight, bias, eps, input_bias, residual, dropout_p);
}

at::Tensor bias_activation(const at::Tensor& input, const at::Tensor& bias, std::string_view activation) {
  static const auto op =
      find<at::Tensor(const at::Tensor&, const at::Tensor&, std::string_view)>("strobe::bias_activation");
  return op.call(input, bias, activation);
}

Tensor5 layer_norm_forward(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias, double eps,
                           const OptionalTensor& input_bias, const OptionalTensor& residual, double dropout_p) {
  static const auto op =
      find<Tensor5(const at::Tensor&, const at::Tensor&, const at::Tensor&, double, const OptionalTensor&,
                   const OptionalTensor&, double)>("strobe::layer_norm_forward");
  return op.call(input, weight, bias, eps, input_bias, residual, dropout_p);
}

Tensor5 layer_norm_backward(const at::Tensor& grad_out, const OptionalTensor& grad_sum, const at::Tensor& sum,
                            const at::Tensor& mean, const at::Tensor& rstd, const at::Tensor& weight, double dropout_p,
                            const at::Tensor& rng_state) {
  static const auto op =
      find<Tensor5(const at::Tensor&, const OptionalTensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                   const at::Tensor&, double, const at::Tensor&)>("strobe::layer_norm_backward");
  return op.call(grad_out, grad_sum, sum, mean, rstd, weight, dropout_p, rng_state);
}

at::Tensor bias_activation_forward(const at::Tensor& input, const at::Tensor& bias, std::string_view activation) {
  static const auto op =
      find<at::Tensor(const at::Tensor&, const at::Tensor&, std::string_view)>("strobe::bias_activation_forward");
  return op.call(input, bias, activation);
}

std::tuple<at::Tensor, at::Tensor> bias_activation_backward(const at::Tensor& grad_out, const at::Tensor& input,
                                                            const at::Tensor& bias, std::string_view activation) {
  static const auto op = find<std::tuple<at::Tensor, at::Tensor>(
      const at::Tensor&, const at::Tensor&, const at::Tensor&, std::string_view)>("strobe::bias_activation_backward");
  return op.call(grad_out, input, bias, activation);
}

TORCH_LIBRARY_FRAGMENT(strobe, m) {
  const std::vector<at::Tag> draws = {at::Tag::nondeterministic_seeded, at::Tag::pt2_compliant_tag};
  const std::vector<at::Tag> pure = {at::Tag::pt2_compliant_tag};
  const std::string norm =
      "(Tensor input, Tensor weight, Tensor bias, float eps, Tensor? input_bias=None, Tensor? residual=None, "
      "float dropout_p=0.0) -> ";
  const std::string activation = "(Tensor input, Tensor bias, str activation) -> Tensor";
  m.def(torch::schema(("layer_norm" + norm + "(Tensor sum, Tensor out)").c_str()), draws);
  m.def(torch::schema(
            ("layer_norm_forward" + norm + "(Tensor sum, Tensor out, Tensor mean, Tensor rstd, Tensor rng_state)")
                .c_str()),
        draws);
  m.def(torch::schema("layer_norm_backward(Tensor grad_out, Tensor? grad_sum, Tensor sum, Tensor mean, Tensor rstd, "
                      "Tensor weight, float dropout_p, Tensor rng_state) -> (Tensor grad_residual, Tensor grad_input, "
                      "Tensor grad_input_bias, Tensor grad_weight, Tensor grad_bias)"),
        pure);
  m.def(torch::schema(("bias_activation" + activation).c_str()), pure);
  m.def(torch::schema(("bias_activation_forward" + activation).c_str()), pure);
  m.def(torch::schema("bias_activation_backward(Tensor grad_out, Tensor input, Tensor bias, str activation) -> "
                      "(Tensor grad_input, Tensor grad_bias)"),
        pure);
}

}  // namespace strobe::ops
