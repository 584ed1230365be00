// Layer normalisation (Ba et al. 2016, arXiv 1607.06450) over the last dimension.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

namespace strobe::nn {

/// x [..., N], weight [N], bias [N] -> like x. A 16-bit x is normalised in fp32, with weights as they are, and rounded
/// once; only its 16 bits are kept for the backward, which is differentiable once. On CUDA that is one kernel
/// (ops/pointwise.h).
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps);

/// Weight 1 and bias 0 at the start.
class LayerNormImpl : public torch::nn::Module {
 public:
  LayerNormImpl(int64_t width, double eps);
  at::Tensor forward(const at::Tensor& x) { return layer_norm(x, weight_, bias_, eps_); }

  const at::Tensor& weight() const { return weight_; }
  const at::Tensor& bias() const { return bias_; }
  double eps() const { return eps_; }

 private:
  at::Tensor weight_, bias_;
  double eps_;
};
TORCH_MODULE(LayerNorm);

}  // namespace strobe::nn
