#include "nn/residual_norm.h"

#include "nn/dropout.h"
#include "ops/pointwise.h"

namespace strobe::nn {

NormedSum residual_norm(const at::Tensor& residual, const at::Tensor& input, const Linear& linear,
                        const LayerNorm& norm, double dropout, bool training) {
  const bool has_both = !norm.is_empty() && linear->bias.defined();
  if (has_both && ops::fuses_layer_norm(residual) && product_dtype(linear->weight) == residual.scalar_type()) {
    const auto [sum, normed] = ops::layer_norm(nn::linear(input, linear->weight), norm->weight(), norm->bias(),
                                               norm->eps(), linear->bias, residual, training ? dropout : 0.0);
    return {sum, normed};
  }
  const at::Tensor sum = add_dropout(residual, Linear(linear)->forward(input), dropout, training);
  return {sum, norm.is_empty() ? at::Tensor() : LayerNorm(norm)->forward(sum)};
}

}  // namespace strobe::nn
