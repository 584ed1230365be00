// The loss at the end of a model of text.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace strobe::ops {

#pragma GCC visibility push(default)

/// Cross entropy summed over the rows, 0-d: logits [rows, classes], targets [rows] int64 in [0, classes), or `ignored`
/// for rows that do not count. With label smoothing e the target distribution is (1 - e) one-hot + e / classes (Szegedy
/// et al. 2016). Computed in fp32 at least whatever the logits' dtype; of 16 bits on CUDA, with a number of classes
/// that is a multiple of 8, by one kernel forward and one backward that read the logits as they are
/// (strobe/cross_entropy.h); else by ATen. Once differentiable.
at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& targets, int64_t ignored, double label_smoothing);

#pragma GCC visibility pop

}  // namespace strobe::ops
