// The hidden layer of a Transformer's feed-forward.
#pragma once

#include <ATen/core/Tensor.h>

#include "nn/linear.h"

namespace strobe::nn {

/// gelu: x Phi(x); quick_gelu: x sigmoid(1.702 x), of CLIP's vision transformer (Hendrycks & Gimpel 2016, arXiv
/// 1606.08415, section 2).
enum class Gelu { kExact, kQuick };

/// gelu(linear(x)): [..., in] -> [..., out], differentiable once. Of 16 bits on CUDA the bias is added in the kernel of
/// the activation (ops/pointwise.h), whose backward also sums up its gradient.
at::Tensor gelu_linear(const at::Tensor& x, const Linear& linear, Gelu gelu);

}  // namespace strobe::nn
