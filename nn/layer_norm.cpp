#include "nn/layer_norm.h"

#include <ATen/ops/layer_norm.h>
#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/native_layer_norm_backward.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/pointwise.h"

namespace strobe::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct LayerNormIn16Bits : torch::autograd::Function<LayerNormIn16Bits> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& bias, double eps) {
    const auto [out, mean, rstd] =
        at::native_layer_norm(x.to(at::kFloat), {x.size(-1)}, weight.to(at::kFloat), bias.to(at::kFloat), eps);
    context->save_for_backward({x, weight, bias, mean, rstd});
    return out.to(x.scalar_type());
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &bias = saved[2];
    const bool parameters = context->needs_input_grad(1) || context->needs_input_grad(2);
    auto [dx, dweight, dbias] = at::native_layer_norm_backward(
        gradients[0].to(at::kFloat), x.to(at::kFloat), {x.size(-1)}, saved[3], saved[4], weight.to(at::kFloat),
        bias.to(at::kFloat), {context->needs_input_grad(0), parameters, parameters});
    if (dx.defined()) dx = dx.to(x.scalar_type());
    if (parameters) {
      dweight = dweight.to(weight.scalar_type());
      dbias = dbias.to(bias.scalar_type());
    }
    return {dx, dweight, dbias, at::Tensor()};
  }
};

}  // namespace

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  if (ops::fuses_layer_norm(x)) return std::get<1>(ops::layer_norm(x, weight, bias, eps));
  const bool is_16_bit = x.scalar_type() == at::kHalf || x.scalar_type() == at::kBFloat16;
  return is_16_bit ? LayerNormIn16Bits::apply(x, weight, bias, eps)
                   : at::layer_norm(x, {x.size(-1)}, weight, bias, eps);
}

LayerNormImpl::LayerNormImpl(int64_t width, double eps)
    : weight_(register_parameter("weight", at::ones({width}))),
      bias_(register_parameter("bias", at::zeros({width}))),
      eps_(eps) {}

}  // namespace strobe::nn
