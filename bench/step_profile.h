// Where a training step's time goes, by torch's own profiler (Kineto).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace strobe::bench {

/// What ran under one name.
struct ProfiledKernel {
  std::string name;
  double ms = 0.0;     // of a step
  double calls = 0.0;  // of a step
};

/// Milliseconds of a step. On a GPU the times of its kernels, each filed by the operators that launched it; `host` is
/// when the GPU had nothing to do. On the CPU the operators' own times, and `host` is what lies between them.
struct StepProfile {
  double attention = 0.0;  // softmax(QK^T)V of any type, forward and backward, without the projections
  double matrix = 0.0;     // matrix products and convolutions
  double optimiser = 0.0;  // updates of the weights, the gradients' norm, loss scaling
  double pointwise = 0.0;  // all else: norms, activations, embeddings, softmax of the loss, copies
  double host = 0.0;
  double wall = 0.0;                         // with the profiler, which costs some time on the host
  std::vector<ProfiledKernel> kernels = {};  // those that took longest, of the CPU its operators
};

/// Runs `step` so many times under the profiler. One profile at a time in a process.
StepProfile profile_steps(const std::function<void()>& step, int64_t steps, at::Device device);

enum class Share { kAttention, kMatrix, kOptimiser, kPointwise };

/// What an operator's time is filed under; `operators` from the outermost to the one itself.
Share share_of(const std::vector<std::string>& operators);

}  // namespace strobe::bench
