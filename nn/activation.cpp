#include "nn/activation.h"

#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>

#include "nn/quick_gelu.h"
#include "ops/pointwise.h"

namespace strobe::nn {

at::Tensor gelu_linear(const at::Tensor& x, const Linear& linear, Gelu gelu) {
  const bool quick = gelu == Gelu::kQuick;
  const at::Tensor weight = for_products(linear->weight);
  if (linear->bias.defined() && ops::fuses_bias_activation(weight.t())) {  // whose last dimension is the product's
    return ops::bias_activation(at::linear(x, weight), linear->bias, quick ? "quick_gelu" : "gelu");
  }
  const at::Tensor hidden = Linear(linear)->forward(x);
  return quick ? quick_gelu(hidden) : at::gelu(hidden);
}

}  // namespace strobe::nn
