// ops/batch_norm.h on CUDA: tensors into the parameters of strobe/batch_norm.h.
#include "strobe/batch_norm.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <optional>
#include <tuple>

#include "ops/device_call.h"

namespace strobe::ops {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

/// Rows are the places of all images.
PointwiseCall call_for(const at::Tensor& x) {
  return {.dtype = x.scalar_type() == at::kHalf ? DType::kFloat16 : DType::kBFloat16,
          .rows = x.numel() / x.size(1),
          .width = x.size(1),
          .stream = current_stream(x)};
}

at::Tensor channels_last(const at::Tensor& t) { return t.contiguous(at::MemoryFormat::ChannelsLast); }

/// In x's dtype and layout.
at::Tensor like(const at::Tensor& t, const at::Tensor& x) { return channels_last(t.to(x.scalar_type())); }

const at::Tensor& statistics(const char* name, const at::Tensor& t, const at::Tensor& x) {
  TORCH_CHECK(t.scalar_type() == at::kFloat && t.dim() == 1 && t.size(0) == x.size(1) && t.is_contiguous(),
              "strobe::batch_norm: ", name, ": expected float32 [", x.size(1), "], found ", t.scalar_type(), " ",
              t.sizes());
  return t;
}

at::Tensor channels(const at::Tensor& x) { return at::empty({x.size(1)}, x.options().dtype(at::kFloat)); }

at::Tensor workspace_for(const at::Tensor& x, const PointwiseCall& call) {
  return at::empty({batch_norm_workspace(call)}, x.options().dtype(at::kFloat));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> forward(const at::Tensor& x, const OptionalTensor& residual,
                                                       const at::Tensor& weight, const at::Tensor& bias,
                                                       const at::Tensor& running_mean, const at::Tensor& running_var,
                                                       double momentum, double eps, bool rectifies) {
  const c10::DeviceGuard guard(x.device());
  const at::Tensor input = channels_last(x), added = residual ? like(*residual, x) : at::Tensor();
  const PointwiseCall call = call_for(x);
  const at::Tensor out = at::empty_like(input), mean = channels(x), rstd = channels(x);
  const at::Tensor workspace = workspace_for(x, call);
  translate_errors([&] {
    batch_norm_forward({.call = call,
                        .x = input.const_data_ptr(),
                        .residual = added.defined() ? added.const_data_ptr() : nullptr,
                        .rectifies = rectifies,
                        .weight = statistics("weight", weight, x).const_data_ptr<float>(),
                        .bias = statistics("bias", bias, x).const_data_ptr<float>(),
                        .eps = eps,
                        .momentum = momentum,
                        .running_mean = statistics("running_mean", running_mean, x).mutable_data_ptr<float>(),
                        .running_var = statistics("running_var", running_var, x).mutable_data_ptr<float>(),
                        .mean = mean.mutable_data_ptr<float>(),
                        .rstd = rstd.mutable_data_ptr<float>(),
                        .out = out.mutable_data_ptr(),
                        .workspace = workspace.mutable_data_ptr<float>()});
  });
  return {out, mean, rstd};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& grad_out, const at::Tensor& x,
                                                                    const OptionalTensor& out, const at::Tensor& weight,
                                                                    const at::Tensor& bias, const at::Tensor& mean,
                                                                    const at::Tensor& rstd, bool rectifies) {
  const c10::DeviceGuard guard(x.device());
  const at::Tensor input = channels_last(x), gradient = like(grad_out, x);
  const at::Tensor result = out ? channels_last(*out) : at::Tensor();
  const PointwiseCall call = call_for(x);
  const at::Tensor grad_x = at::empty_like(input);
  const at::Tensor grad_residual = out ? at::empty_like(input) : at::empty({0}, x.options());
  const at::Tensor grad_weight = channels(x), grad_bias = channels(x), workspace = workspace_for(x, call);
  translate_errors([&] {
    batch_norm_backward({.call = call,
                         .grad_out = gradient.const_data_ptr(),
                         .x = input.const_data_ptr(),
                         .out = out ? result.const_data_ptr() : nullptr,
                         .rectifies = rectifies,
                         .mean = mean.const_data_ptr<float>(),
                         .rstd = rstd.const_data_ptr<float>(),
                         .weight = weight.const_data_ptr<float>(),
                         .bias = bias.const_data_ptr<float>(),
                         .grad_x = grad_x.mutable_data_ptr(),
                         .grad_residual = out ? grad_residual.mutable_data_ptr() : nullptr,
                         .grad_weight = grad_weight.mutable_data_ptr<float>(),
                         .grad_bias = grad_bias.mutable_data_ptr<float>(),
                         .workspace = workspace.mutable_data_ptr<float>()});
  });
  return {grad_x, grad_residual, grad_weight, grad_bias};
}

}  // namespace

TORCH_LIBRARY_IMPL(strobe, CUDA, m) {
  m.impl("batch_norm_forward", TORCH_FN(forward));
  m.impl("batch_norm_backward", TORCH_FN(backward));
}

}  // namespace strobe::ops
