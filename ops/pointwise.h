// Operators on what stands between the matrix products of a training step (strobe/pointwise.h). They go through the
// dispatcher; in Python they are torch.ops.strobe.layer_norm and torch.ops.strobe.bias_activation. On CUDA activations
// are of 16 bits, their last dimension is a multiple of 8 (layer_norm: and at most 2048), and one kernel computes each;
// on the CPU they are ATen's operators one after another, of any dtype. All is computed in fp32 at least, whatever the
// dtypes; parameters may be wider than activations, as under autocast.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>
#include <tuple>

namespace strobe::ops {

using OptionalTensor = std::optional<at::Tensor>;

#pragma GCC visibility push(default)

/// Whether the CUDA kernels take activations like x.
bool fuses_layer_norm(const at::Tensor& x);
bool fuses_bias_activation(const at::Tensor& x);

/// sum = residual + dropout(input + input_bias), rounded to input's dtype, and its layer norm over the last dimension,
/// N: input, residual [..., N]; the others [N] -> sum (empty without a residual), out. Dropout, which needs a residual,
/// draws a seed from torch's generator of the device.
std::tuple<at::Tensor, at::Tensor> layer_norm(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                                              double eps, const OptionalTensor& input_bias = std::nullopt,
                                              const OptionalTensor& residual = std::nullopt, double dropout_p = 0.0);

/// activation(input + bias), "gelu" or "quick_gelu": input [..., N], bias [N] -> like input.
at::Tensor bias_activation(const at::Tensor& input, const at::Tensor& bias, std::string_view activation);

#pragma GCC visibility pop

}  // namespace strobe::ops
