// Dropout fused with what stands next to it in a Transformer layer. ATen's CPU dropout draws its mask on one thread and
// takes three passes over memory; these draw from Philox4x32-7 (strobe/dropout.h) on all threads in the pass that uses
// the draw, store no mask, and draw it again in the backward. Tensors that are not fp32 on the CPU take ATen's
// operators.
#pragma once

#include <ATen/core/Tensor.h>

namespace strobe::nn {

/// Each element is kept with probability 1 - p, p in [0, 1), rounded to a multiple of 2^-16, and then scaled so that
/// the expectation stays. The identity unless `training`. One seed a call is drawn from torch's generator of the
/// device.
at::Tensor dropout(const at::Tensor& x, double p, bool training);

/// residual + dropout(x).
at::Tensor add_dropout(const at::Tensor& residual, const at::Tensor& x, double p, bool training);

/// dropout(max(0, x)).
at::Tensor relu_dropout(const at::Tensor& x, double p, bool training);

}  // namespace strobe::nn
