// Batch normalisation (Ioffe & Szegedy 2015, arXiv 1502.03167), over one process or over all.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <functional>
#include <memory>

namespace strobe::clip {

/// A row [n] of this process -> the rows of all processes [world, n], in rank order. Called once in each forward and
/// once in each backward, in the same order on all processes; no gradient flows through it.
using GatherRows = std::function<at::Tensor(const at::Tensor& row)>;

/// Over the channels of [B, C, H, W], as torch.nn.BatchNorm2d: biased variance to normalise with, unbiased for the
/// running statistics, momentum 0.1, eps 1e-5.
class BatchNormImpl : public torch::nn::Module {
 public:
  explicit BatchNormImpl(int64_t channels);

  /// The norm of x, to which `residual` is added if defined, and the rectifier if asked for.
  at::Tensor forward(const at::Tensor& x, bool rectifies = false, const at::Tensor& residual = {});

  /// From now on the running statistics are used and kept, in training too.
  void freeze() { frozen_ = true; }

  /// From now on the statistics of training are those of all processes' batches. Gradients of weight and bias stay this
  /// process's share.
  void synchronise(const GatherRows& gather);

  const at::Tensor& weight() const { return weight_; }

 private:
  at::Tensor forward_over_all(const at::Tensor& x);

  at::Tensor weight_, bias_;               // [C]
  at::Tensor running_mean_, running_var_;  // [C]
  at::Tensor num_batches_tracked_;         // 0-d int64
  bool frozen_ = false;
  std::shared_ptr<const GatherRows> gather_;  // null: one process
};
TORCH_MODULE(BatchNorm);

}  // namespace strobe::clip
