// The activation of CLIP's vision transformer.
#pragma once

#include <ATen/core/Tensor.h>

namespace strobe::nn {

/// x sigmoid(1.702 x) (Hendrycks & Gimpel 2016, arXiv 1606.08415, section 2), differentiable once; keeps x alone for
/// the backward.
at::Tensor quick_gelu(const at::Tensor& x);

}  // namespace strobe::nn
