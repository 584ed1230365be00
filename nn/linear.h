// x W^T + b.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

namespace strobe::nn {

/// x [..., in], weight [out, in], bias [out] or undefined -> [..., out], differentiable once. In fp32 on a CPU with
/// AVX-512 through oneDNN, whose products take those instructions on every maker's processors: on AMD's twice as fast
/// as the library behind at::linear. Under autocast on CUDA the gradients of fp32 parameters come in fp32 straight from
/// their products. Everything else goes through at::linear.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

/// The dtype that products with a parameter come in here: that of the device's autocast region, if in one.
at::ScalarType product_dtype(const at::Tensor& parameter);

/// A tensor as products take it here: in the dtype of the device's autocast region, if in one.
at::Tensor for_products(const at::Tensor& parameter);

/// torch::nn::Linear over it, with the same parameters.
class LinearImpl : public torch::nn::LinearImpl {
 public:
  using torch::nn::LinearImpl::LinearImpl;
  at::Tensor forward(const at::Tensor& x) { return linear(x, weight, bias); }
};
TORCH_MODULE(Linear);

/// Several layers of the same input as one product: x [..., in] -> [..., out of the first, out of the second, ...].
at::Tensor joint_linear(const at::Tensor& x, c10::ArrayRef<Linear> layers);

}  // namespace strobe::nn
