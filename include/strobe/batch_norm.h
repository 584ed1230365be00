// Batch normalisation in training (Ioffe & Szegedy 2015, arXiv 1502.03167) with the residual sum and the rectifier
// behind it, on CUDA, for activations with the channels last: the [rows, width] matrices of strobe/pointwise.h, a row a
// place of an image, a column a channel. Forward: one pass for the statistics and one for the rest; backward: one for
// the sums and one for the rest. Parameters and statistics are float32; what holds in pointwise.h holds here.
#pragma once

#include "strobe/pointwise.h"

namespace strobe {

constexpr int64_t kBatchNormMaxWidth = 2048;

/// out = f((x - mean) * rstd * weight + bias + residual), f the rectifier or the identity, with each column's mean and
/// rstd = 1 / sqrt(variance + eps), of which the biased variance is meant. The running statistics move by `momentum` of
/// the way to the mean and the unbiased variance.
struct BatchNormForward {
  PointwiseCall call;
  const void* x = nullptr;
  const void* residual = nullptr;  // null: 0
  bool rectifies = false;
  const float *weight = nullptr, *bias = nullptr;  // [width], like all parameters and statistics
  double eps = 0.0, momentum = 0.0;
  float *running_mean = nullptr, *running_var = nullptr;
  float *mean = nullptr, *rstd = nullptr;
  void* out = nullptr;
  float* workspace = nullptr;  // batch_norm_workspace(call) floats
};
int64_t batch_norm_workspace(const PointwiseCall& call);
void batch_norm_forward(const BatchNormForward& params);

struct BatchNormBackward {
  PointwiseCall call;
  const void* grad_out = nullptr;
  const void* x = nullptr;
  const void* out = nullptr;  // null without a residual: what the rectifier has done is computed again from x
  bool rectifies = false;
  const float *mean = nullptr, *rstd = nullptr, *weight = nullptr, *bias = nullptr;
  void* grad_x = nullptr;
  void* grad_residual = nullptr;  // null without a residual
  float *grad_weight = nullptr, *grad_bias = nullptr;
  float* workspace = nullptr;
};
void batch_norm_backward(const BatchNormBackward& params);

}  // namespace strobe
