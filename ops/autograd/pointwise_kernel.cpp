// Gradients of ops/pointwise.h, once differentiable.
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/pointwise_inner.h"

namespace strobe::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

OptionalTensor or_none(const at::Tensor& t) { return t.defined() ? OptionalTensor(t) : std::nullopt; }

class LayerNormFunction : public torch::autograd::Function<LayerNormFunction> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& input, const at::Tensor& weight,
                               const at::Tensor& bias, double eps, const OptionalTensor& input_bias,
                               const OptionalTensor& residual, double dropout_p) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [sum, out, mean, rstd, rng_state] =
        layer_norm_forward(input, weight, bias, eps, input_bias, residual, dropout_p);
    ctx->save_for_backward({residual ? sum : input, mean, rstd, weight, rng_state});
    ctx->set_materialize_grads(false);
    ctx->saved_data["dropout_p"] = dropout_p;
    ctx->saved_data["has_residual"] = residual.has_value();
    if (!residual) ctx->mark_non_differentiable({sum});
    return {sum, out};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const bool has_residual = ctx->saved_data["has_residual"].toBool();
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::Tensor grad_out = grads[1].defined() ? grads[1] : at::zeros_like(saved[0]);
    const auto [grad_residual, grad_input, grad_input_bias, grad_weight, grad_bias] =
        layer_norm_backward(grad_out, has_residual ? or_none(grads[0]) : std::nullopt, saved[0], saved[1], saved[2],
                            saved[3], ctx->saved_data["dropout_p"].toDouble(), saved[4]);
    const bool dropped = grad_input.numel() > 0;
    return {dropped ? grad_input : grad_residual,
            grad_weight,
            grad_bias,
            at::Tensor(),
            has_residual ? grad_input_bias : at::Tensor(),
            has_residual ? grad_residual : at::Tensor(),
            at::Tensor()};
  }
};

class BiasActivationFunction : public torch::autograd::Function<BiasActivationFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& input, const at::Tensor& bias,
                            std::string_view activation) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    ctx->save_for_backward({input, bias});
    ctx->saved_data["activation"] = std::string(activation);
    return bias_activation_forward(input, bias, activation);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [grad_input, grad_bias] =
        bias_activation_backward(grads[0], saved[0], saved[1], ctx->saved_data["activation"].toStringRef());
    return {grad_input, grad_bias, at::Tensor()};
  }
};

std::tuple<at::Tensor, at::Tensor> layer_norm_autograd(const at::Tensor& input, const at::Tensor& weight,
                                                       const at::Tensor& bias, double eps,
                                                       const OptionalTensor& input_bias, const OptionalTensor& residual,
                                                       double dropout_p) {
  const variable_list results = LayerNormFunction::apply(input, weight, bias, eps, input_bias, residual, dropout_p);
  return {results[0], results[1]};
}

at::Tensor bias_activation_autograd(const at::Tensor& input, const at::Tensor& bias, std::string_view activation) {
  return BiasActivationFunction::apply(input, bias, activation);
}

}  // namespace

TORCH_LIBRARY_IMPL(strobe, Autograd, m) {
  m.impl("layer_norm", TORCH_FN(layer_norm_autograd));
  m.impl("bias_activation", TORCH_FN(bias_activation_autograd));
  for (const char* inner :
       {"layer_norm_forward", "layer_norm_backward", "bias_activation_forward", "bias_activation_backward"}) {
    m.impl(inner, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace strobe::ops
