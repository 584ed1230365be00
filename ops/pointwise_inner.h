// What autograd is built from over ops/pointwise.h. Each function goes through the dispatcher.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>
#include <tuple>

#include "ops/pointwise.h"
#include "strobe/pointwise.h"

namespace strobe::ops {

using Tensor5 = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

/// -> sum (empty without a residual), out, mean, rstd (fp32, [rows]), rng_state ([2] int64, or empty without dropout).
Tensor5 layer_norm_forward(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias, double eps,
                           const OptionalTensor& input_bias, const OptionalTensor& residual, double dropout_p);

/// `sum` is the input where there was no residual -> grad_residual, grad_input (empty without dropout: it is
/// grad_residual), grad_input_bias, grad_weight, grad_bias.
Tensor5 layer_norm_backward(const at::Tensor& grad_out, const OptionalTensor& grad_sum, const at::Tensor& sum,
                            const at::Tensor& mean, const at::Tensor& rstd, const at::Tensor& weight, double dropout_p,
                            const at::Tensor& rng_state);

at::Tensor bias_activation_forward(const at::Tensor& input, const at::Tensor& bias, std::string_view activation);

/// -> grad_input, grad_bias.
std::tuple<at::Tensor, at::Tensor> bias_activation_backward(const at::Tensor& grad_out, const at::Tensor& input,
                                                            const at::Tensor& bias, std::string_view activation);

/// Throws c10::Error for another name.
Activation parse_activation(std::string_view name);

/// Throws c10::Error where shapes do not fit.
void check_layer_norm(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                      const OptionalTensor& input_bias, const OptionalTensor& residual, double dropout_p);
void check_bias_activation(const at::Tensor& input, const at::Tensor& bias);

}  // namespace strobe::ops
