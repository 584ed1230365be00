// ops/pointwise.h on CUDA: tensors into the parameters of strobe/pointwise.h.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "ops/device_call.h"
#include "ops/pointwise_inner.h"
#include "ops/rng.h"
#include "strobe/pointwise.h"

namespace strobe::ops {
namespace {

void check_activations(bool fits, const char* operation, const at::Tensor& x) {
  TORCH_CHECK(fits, "strobe::", operation,
              ": input: expected float16 or bfloat16 and a last dimension that is a multiple of 8 (layer_norm: and at "
              "most ",
              kLayerNormMaxWidth, "), found ", x.scalar_type(), " and ", x.sizes());
}

PointwiseCall call_for(const at::Tensor& x) {
  return {.dtype = x.scalar_type() == at::kHalf ? DType::kFloat16 : DType::kBFloat16,
          .rows = x.numel() / x.size(-1),
          .width = x.size(-1),
          .stream = current_stream(x)};
}

at::Tensor parameter(const at::Tensor& t) { return t.to(at::kFloat).contiguous(); }

const float* floats(const at::Tensor& t) { return t.defined() ? t.const_data_ptr<float>() : nullptr; }
const void* data(const at::Tensor& t) { return t.defined() ? t.const_data_ptr() : nullptr; }

at::Tensor activations(const OptionalTensor& t) { return t ? t->contiguous() : at::Tensor(); }

at::Tensor new_floats(const at::Tensor& like, int64_t count) {
  return at::empty({count}, like.options().dtype(at::kFloat));
}

Tensor5 layer_norm_forward_cuda(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias, double eps,
                                const OptionalTensor& input_bias, const OptionalTensor& residual, double dropout_p) {
  check_layer_norm(input, weight, bias, input_bias, residual, dropout_p);
  check_activations(fuses_layer_norm(input), "layer_norm", input);
  const c10::DeviceGuard guard(input.device());
  const at::Tensor x = input.contiguous(), added = activations(residual);
  const at::Tensor w = parameter(weight), b = parameter(bias), xb = input_bias ? parameter(*input_bias) : at::Tensor();
  AttentionOptions draw;
  draw.dropout_p = dropout_p;
  const at::Tensor rng_state = draw_rng_state(draw, input);
  const PointwiseCall call = call_for(x);
  const at::Tensor sum = residual ? at::empty_like(x) : at::empty({0}, x.options()), out = at::empty_like(x);
  const at::Tensor mean = new_floats(x, call.rows), rstd = new_floats(x, call.rows);
  translate_errors([&] {
    strobe::layer_norm_forward(strobe::LayerNormForward{.call = call,
                                                        .input = data(x),
                                                        .input_bias = floats(xb),
                                                        .residual = data(added),
                                                        .dropout_p = dropout_p,
                                                        .rng_state = rng_words(rng_state),
                                                        .weight = floats(w),
                                                        .bias = floats(b),
                                                        .eps = eps,
                                                        .sum = residual ? sum.mutable_data_ptr() : nullptr,
                                                        .out = out.mutable_data_ptr(),
                                                        .mean = mean.mutable_data_ptr<float>(),
                                                        .rstd = rstd.mutable_data_ptr<float>()});
  });
  return {sum, out, mean, rstd, rng_state};
}

Tensor5 layer_norm_backward_cuda(const at::Tensor& grad_out, const OptionalTensor& grad_sum, const at::Tensor& sum,
                                 const at::Tensor& mean, const at::Tensor& rstd, const at::Tensor& weight,
                                 double dropout_p, const at::Tensor& rng_state) {
  check_activations(fuses_layer_norm(sum), "layer_norm", sum);
  const c10::DeviceGuard guard(sum.device());
  const at::Tensor x = sum.contiguous(), dy = grad_out.to(x.scalar_type()).contiguous(), dsum = activations(grad_sum);
  const at::Tensor w = parameter(weight);
  const PointwiseCall call = call_for(x);
  const at::Tensor grad_residual = at::empty_like(x);
  const at::Tensor grad_input = dropout_p > 0.0 ? at::empty_like(x) : at::empty({0}, x.options());
  const at::Tensor grad_input_bias = new_floats(x, call.width), grad_weight = new_floats(x, call.width),
                   grad_bias = new_floats(x, call.width), workspace = new_floats(x, layer_norm_workspace(call));
  translate_errors([&] {
    strobe::layer_norm_backward(
        strobe::LayerNormBackward{.call = call,
                                  .grad_out = data(dy),
                                  .grad_sum = data(dsum),
                                  .sum = data(x),
                                  .mean = floats(mean),
                                  .rstd = floats(rstd),
                                  .weight = floats(w),
                                  .dropout_p = dropout_p,
                                  .rng_state = rng_words(rng_state),
                                  .grad_residual = grad_residual.mutable_data_ptr(),
                                  .grad_input = dropout_p > 0.0 ? grad_input.mutable_data_ptr() : nullptr,
                                  .grad_input_bias = grad_input_bias.mutable_data_ptr<float>(),
                                  .grad_weight = grad_weight.mutable_data_ptr<float>(),
                                  .grad_bias = grad_bias.mutable_data_ptr<float>(),
                                  .workspace = workspace.mutable_data_ptr<float>()});
  });
  return {grad_residual, grad_input, grad_input_bias.to(weight.scalar_type()), grad_weight.to(weight.scalar_type()),
          grad_bias.to(weight.scalar_type())};
}

at::Tensor bias_activation_forward_cuda(const at::Tensor& input, const at::Tensor& bias, std::string_view activation) {
  check_bias_activation(input, bias);
  check_activations(fuses_bias_activation(input), "bias_activation", input);
  const c10::DeviceGuard guard(input.device());
  const at::Tensor x = input.contiguous(), b = parameter(bias), out = at::empty_like(x);
  translate_errors([&] {
    strobe::activation_forward(strobe::ActivationForward{.call = call_for(x),
                                                         .activation = parse_activation(activation),
                                                         .input = data(x),
                                                         .bias = floats(b),
                                                         .out = out.mutable_data_ptr()});
  });
  return out;
}

std::tuple<at::Tensor, at::Tensor> bias_activation_backward_cuda(const at::Tensor& grad_out, const at::Tensor& input,
                                                                 const at::Tensor& bias, std::string_view activation) {
  const c10::DeviceGuard guard(input.device());
  const at::Tensor x = input.contiguous(), dy = grad_out.to(x.scalar_type()).contiguous(), b = parameter(bias);
  const PointwiseCall call = call_for(x);
  const at::Tensor grad_input = at::empty_like(x), grad_bias = new_floats(x, call.width),
                   workspace = new_floats(x, activation_workspace(call));
  translate_errors([&] {
    strobe::activation_backward(strobe::ActivationBackward{.call = call,
                                                           .activation = parse_activation(activation),
                                                           .grad_out = data(dy),
                                                           .input = data(x),
                                                           .bias = floats(b),
                                                           .grad_input = grad_input.mutable_data_ptr(),
                                                           .grad_bias = grad_bias.mutable_data_ptr<float>(),
                                                           .workspace = workspace.mutable_data_ptr<float>()});
  });
  return {grad_input, grad_bias.to(bias.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(strobe, CUDA, m) {
  m.impl("layer_norm_forward", TORCH_FN(layer_norm_forward_cuda));
  m.impl("layer_norm_backward", TORCH_FN(layer_norm_backward_cuda));
  m.impl("bias_activation_forward", TORCH_FN(bias_activation_forward_cuda));
  m.impl("bias_activation_backward", TORCH_FN(bias_activation_backward_cuda));
}

}  // namespace strobe::ops
