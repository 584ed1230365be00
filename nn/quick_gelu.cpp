#include "nn/quick_gelu.h"

#include <ATen/ops/mul.h>
#include <ATen/ops/silu_backward.h>
#include <torch/csrc/autograd/custom_function.h>

namespace strobe::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr double kSlope = 1.702;

struct QuickGelu : torch::autograd::Function<QuickGelu> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x) {
    context->save_for_backward({x});
    return at::mul(x, kSlope).sigmoid_().mul_(x);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    // With silu(z) = z sigmoid(z) the function is silu(1.702 x) / 1.702, so its derivative is silu'(1.702 x).
    return {at::silu_backward(gradients[0], at::mul(context->get_saved_variables()[0], kSlope))};
  }
};

}  // namespace

at::Tensor quick_gelu(const at::Tensor& x) { return QuickGelu::apply(x); }

}  // namespace strobe::nn
