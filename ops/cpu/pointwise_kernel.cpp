// ops/pointwise.h on the CPU: ATen's operators one after another.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/native_layer_norm_backward.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <torch/library.h>

#include "ops/pointwise_inner.h"
#include "ops/rng.h"
#include "strobe/pointwise.h"

namespace strobe::ops {
namespace {

constexpr double kQuickSlope = 1.702;

/// In the dtype that is computed in.
at::Tensor wide(const at::Tensor& x) { return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat); }

at::Tensor wide(const at::Tensor& parameter, const at::Tensor& like) { return parameter.to(wide(like).scalar_type()); }

/// 0 or the scale for each element of x.
at::Tensor dropout_factors(const at::Tensor& x, double dropout_p, const at::Tensor& rng_state) {
  const uint64_t* words = rng_words(rng_state);
  const uint32_t threshold = dropout_threshold(dropout_p);
  const at::Tensor factors = at::empty(x.sizes(), x.options().dtype(at::kFloat));
  auto* values = factors.mutable_data_ptr<float>();
  const int64_t width = x.size(-1), rows = x.numel() / width;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < width; ++column) {
      const auto random = pointwise_random(words[0], words[1], row, column / kPointwiseVector);
      const int64_t word = column % kPointwiseVector;
      const bool stays = ((random[static_cast<std::size_t>(word / 2)] >> (16 * (word % 2))) & 0xFFFFu) < threshold;
      values[row * width + column] = stays ? dropout_scale(threshold) : 0.0f;
    }
  }
  return factors;
}

Tensor5 layer_norm_forward_cpu(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias, double eps,
                               const OptionalTensor& input_bias, const OptionalTensor& residual, double dropout_p) {
  check_layer_norm(input, weight, bias, input_bias, residual, dropout_p);
  AttentionOptions draw;
  draw.dropout_p = dropout_p;
  const at::Tensor rng_state = draw_rng_state(draw, input);
  at::Tensor sum = wide(input);
  if (input_bias) sum = sum + wide(*input_bias, input);
  if (dropout_p > 0.0) sum = sum * dropout_factors(input, dropout_p, rng_state);
  if (residual) sum = (sum + wide(*residual)).to(input.scalar_type());
  const auto [out, mean, rstd] =
      at::native_layer_norm(wide(sum), {sum.size(-1)}, wide(weight, input), wide(bias, input), eps);
  return {residual ? sum : at::empty({0}, input.options()), out.to(input.scalar_type()), mean.flatten(), rstd.flatten(),
          rng_state};
}

Tensor5 layer_norm_backward_cpu(const at::Tensor& grad_out, const OptionalTensor& grad_sum, const at::Tensor& sum,
                                const at::Tensor& mean, const at::Tensor& rstd, const at::Tensor& weight,
                                double dropout_p, const at::Tensor& rng_state) {
  std::vector<int64_t> rows = sum.sizes().vec();
  rows.back() = 1;
  const at::Tensor w = wide(weight, sum);
  const auto [dx, dweight, dbias] = at::native_layer_norm_backward(
      wide(grad_out), wide(sum), {sum.size(-1)}, mean.view(rows), rstd.view(rows), w, w, {true, true, true});
  const at::Tensor residual = grad_sum ? dx + wide(*grad_sum) : dx;
  const at::Tensor input =
      dropout_p > 0.0 ? residual * dropout_factors(sum, dropout_p, rng_state) : at::empty({0}, sum.options());
  const at::Tensor of_bias = (dropout_p > 0.0 ? input : residual).reshape({-1, sum.size(-1)}).sum(0);
  const at::ScalarType parameters = weight.scalar_type();
  return {residual.to(sum.scalar_type()), input.to(sum.scalar_type()), of_bias.to(parameters), dweight.to(parameters),
          dbias.to(parameters)};
}

at::Tensor bias_activation_forward_cpu(const at::Tensor& input, const at::Tensor& bias, std::string_view activation) {
  check_bias_activation(input, bias);
  const at::Tensor x = wide(input) + wide(bias, input);
  const bool quick = parse_activation(activation) == Activation::kQuickGelu;
  return (quick ? at::silu(x * kQuickSlope) / kQuickSlope : at::gelu(x)).to(input.scalar_type());
}

std::tuple<at::Tensor, at::Tensor> bias_activation_backward_cpu(const at::Tensor& grad_out, const at::Tensor& input,
                                                                const at::Tensor& bias, std::string_view activation) {
  const at::Tensor x = wide(input) + wide(bias, input), dy = wide(grad_out);
  const bool quick = parse_activation(activation) == Activation::kQuickGelu;
  const at::Tensor dx = quick ? at::silu_backward(dy, x * kQuickSlope) : at::gelu_backward(dy, x);
  return {dx.to(input.scalar_type()), dx.reshape({-1, dx.size(-1)}).sum(0).to(bias.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(strobe, CPU, m) {
  m.impl("layer_norm_forward", TORCH_FN(layer_norm_forward_cpu));
  m.impl("layer_norm_backward", TORCH_FN(layer_norm_backward_cpu));
  m.impl("bias_activation_forward", TORCH_FN(bias_activation_forward_cpu));
  m.impl("bias_activation_backward", TORCH_FN(bias_activation_backward_cpu));
}

}  // namespace strobe::ops
