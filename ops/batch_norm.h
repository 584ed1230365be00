// Batch normalisation of images in training.
#pragma once

#include <ATen/core/Tensor.h>

namespace strobe::ops {

struct BatchNormOptions {
  double momentum = 0.1;
  double eps = 1e-5;
  bool rectifies = false;
};

#pragma GCC visibility push(default)

/// f(norm(x) + residual), f the rectifier or the identity: x and residual [B, C, H, W], residual undefined for 0;
/// weight, bias, running_mean and running_var [C]. The running statistics are updated in place. Of 16 bits with the
/// channels last on CUDA, C a multiple of 8 and at most 2048, in two passes forward and two backward
/// (strobe/batch_norm.h); else by ATen. Once differentiable.
at::Tensor batch_norm(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, const at::Tensor& bias,
                      const at::Tensor& running_mean, const at::Tensor& running_var, const BatchNormOptions& options);

#pragma GCC visibility pop

}  // namespace strobe::ops
