// What ends one sublayer of a Transformer and begins the next: the residual sum and its normalisation.
#pragma once

#include <ATen/core/Tensor.h>

#include "nn/layer_norm.h"
#include "nn/linear.h"

namespace strobe::nn {

struct NormedSum {
  at::Tensor sum;     // residual + dropout(linear(input)): goes on where norms stand before sublayers
  at::Tensor normed;  // norm(sum): goes on where they stand behind them; undefined where `norm` is empty
};

/// residual [..., out], input [..., in]. A 16-bit residual on CUDA takes one kernel for all but the product
/// (ops/pointwise.h); else it is nn::add_dropout and the norm.
NormedSum residual_norm(const at::Tensor& residual, const at::Tensor& input, const Linear& linear,
                        const LayerNorm& norm, double dropout = 0.0, bool training = false);

}  // namespace strobe::nn
