// Initial weights.
#pragma once

#include <ATen/core/Tensor.h>

namespace strobe::nn {

/// Fills a matrix [fan_out, fan_in] in place from U(-a, a) with a = sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio
/// 2010).
void xavier_uniform_(const at::Tensor& matrix);

}  // namespace strobe::nn
