#include "nn/activation.h"

#include <ATen/ops/gelu.h>

#include "nn/quick_gelu.h"
#include "ops/pointwise.h"
#include "strobe/pointwise.h"

namespace strobe::nn {
namespace {

/// Whether its products are activations that the kernels take.
bool fuses(const Linear& linear) {
  const at::Tensor& weight = linear->weight;
  const at::ScalarType dtype = product_dtype(weight);
  return weight.is_cuda() && (dtype == at::kHalf || dtype == at::kBFloat16) && linear->bias.defined() &&
         weight.size(0) % kPointwiseVector == 0;
}

}  // namespace

at::Tensor gelu_linear(const at::Tensor& x, const Linear& linear, Gelu gelu) {
  const bool quick = gelu == Gelu::kQuick;
  if (fuses(linear))
    return ops::bias_activation(nn::linear(x, linear->weight), linear->bias, quick ? "quick_gelu" : "gelu");
  const at::Tensor hidden = Linear(linear)->forward(x);
  return quick ? quick_gelu(hidden) : at::gelu(hidden);
}

}  // namespace strobe::nn
