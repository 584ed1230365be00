// Cross entropy of logits and targets with label smoothing (Szegedy et al. 2016, arXiv 1512.00567, section 7) on CUDA:
// one pass over the logits forward, one backward. The logits are float16 or bfloat16 as in strobe/pointwise.h, the
// softmax and its logarithm are float32 and never stored.
#pragma once

#include <cstdint>

#include "strobe/pointwise.h"

namespace strobe {

struct CrossEntropyTargets {
  const int64_t* ids = nullptr;  // [rows], each in [0, width) or `ignored`; the loss of any other is NaN
  int64_t ignored = -1;          // rows with this target have loss 0 and gradient 0
  double smoothing = 0.0;        // e in [0, 1): the target distribution is (1 - e) one-hot + e / width
};

/// losses[i] = -sum_j target_ij log softmax(logits_i)_j; lse[i] = log sum_j exp(logits_ij).
struct CrossEntropyForward {
  PointwiseCall call;  // of the logits [rows, width]
  CrossEntropyTargets targets;
  const void* logits = nullptr;
  float *losses = nullptr, *lse = nullptr;  // [rows]
};
void cross_entropy_forward(const CrossEntropyForward& params);

/// grad_logits = grad (softmax(logits) - target) for the sum of the losses, of which `grad` is the gradient.
struct CrossEntropyBackward {
  PointwiseCall call;
  CrossEntropyTargets targets;
  const void* logits = nullptr;
  const float* lse = nullptr;
  const float* grad = nullptr;  // one value on the device
  void* grad_logits = nullptr;
};
void cross_entropy_backward(const CrossEntropyBackward& params);

}  // namespace strobe
