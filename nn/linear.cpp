#include "nn/linear.h"

#include <ATen/Context.h>
#include <ATen/Version.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>
#include <string_view>
#include <vector>

namespace strobe::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Fewer rows are not worth the 10 microseconds that oneDNN takes to look up its kernel.
constexpr int64_t kLeastRows = 24;

using Scalars = c10::List<std::optional<at::Scalar>>;
using Pointwise = at::Tensor(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                             std::string_view operation, Scalars arguments, std::optional<std::string_view> algorithm);

/// ATen's oneDNN product of strided tensors, which it has for its compilers; none where ATen was built without oneDNN.
const std::optional<c10::TypedOperatorHandle<Pointwise>>& onednn() {
  static const auto handle = []() -> std::optional<c10::TypedOperatorHandle<Pointwise>> {
    const auto found = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    if (!found || at::get_cpu_capability() != "AVX512") return std::nullopt;
    return found->typed<Pointwise>();
  }();
  return handle;
}

/// x [M, K], weight [N, K] of any strides -> [M, N].
at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  return onednn()->call(x, weight, bias, "none", Scalars(), std::nullopt);
}

/// x^T y for x [M, K], y [M, N] -> [K, N]. oneDNN is faster where the larger of K and N is the weight's.
at::Tensor transposed_product(const at::Tensor& x, const at::Tensor& y) {
  return x.size(1) <= y.size(1) ? product(x.t(), y.t(), std::nullopt) : product(y.t(), x.t(), std::nullopt).t();
}

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& bias) {
    context->save_for_backward({x, weight});
    return product(x, weight, bias);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor gradient = gradients[0].contiguous();
    variable_list result(3);
    if (context->needs_input_grad(0)) result[0] = product(gradient, saved[1].t(), std::nullopt);
    if (context->needs_input_grad(1)) result[1] = transposed_product(gradient, saved[0]);
    if (context->needs_input_grad(2)) result[2] = gradient.sum(0);
    return result;
  }
};

/// Under autocast on CUDA: x [M, K] of 16 bits, weight [N, K] in fp32, bias [N] in fp32 or none. Their gradients
/// leave their products in fp32, which saves a pass over the weights and keeps what 16 bits would lose.
struct MixedLinear : torch::autograd::Function<MixedLinear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    const at::Tensor low = weight.to(x.scalar_type());
    context->save_for_backward({x, low});
    context->saved_data["has_bias"] = bias.has_value();  // without one, needs_input_grad does not count it
    return bias ? at::addmm(bias->to(x.scalar_type()), x, low.t()) : at::mm(x, low.t());
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor gradient = gradients[0].contiguous();
    variable_list result(3);
    if (context->needs_input_grad(0)) result[0] = at::mm(gradient, saved[1]);
    if (context->needs_input_grad(1)) result[1] = at::mm(gradient.t(), saved[0], at::kFloat);
    const bool has_bias = context->saved_data["has_bias"].toBool();
    if (has_bias && context->needs_input_grad(2)) result[2] = gradient.sum(0, /*keepdim=*/false, at::kFloat);
    return result;
  }
};

bool takes_mixed(const at::Tensor& x, const at::Tensor& weight) {
  return weight.is_cuda() && weight.scalar_type() == at::kFloat && weight.requires_grad() &&
         at::GradMode::is_enabled() && product_dtype(weight) != at::kFloat && x.scalar_type() != at::kDouble;
}

bool takes_onednn(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const auto is_fp32 = [](const at::Tensor& tensor) { return tensor.is_cpu() && tensor.scalar_type() == at::kFloat; };
  return is_fp32(x) && is_fp32(weight) && bias.defined() && x.numel() >= kLeastRows * x.size(-1) &&
         !at::autocast::is_autocast_enabled(at::kCPU) && at::globalContext().userEnabledMkldnn() && onednn();
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const bool mixed = takes_mixed(x, weight);
  if (!mixed && !takes_onednn(x, weight, bias)) return at::linear(x, weight, bias);
  const at::Tensor rows = x.dim() == 2 ? x : x.reshape({-1, x.size(-1)});
  const auto given = bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt;
  const at::Tensor out = mixed ? MixedLinear::apply(rows.to(product_dtype(weight)), weight, given)
                         : at::GradMode::is_enabled() ? LinearFunction::apply(rows, weight, bias)
                                                      : product(rows, weight, bias);
  if (x.dim() == 2) return out;
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  return out.view(sizes);
}

at::ScalarType product_dtype(const at::Tensor& parameter) {
  const at::DeviceType device = parameter.device().type();
  const bool casts = at::autocast::is_autocast_enabled(device) && parameter.scalar_type() != at::kDouble;
  return casts ? at::autocast::get_autocast_dtype(device) : parameter.scalar_type();
}

at::Tensor for_products(const at::Tensor& parameter) {
  const at::DeviceType device = parameter.device().type();
  if (!at::autocast::is_autocast_enabled(device)) return parameter;
  return at::autocast::cached_cast(at::autocast::get_autocast_dtype(device), parameter, device);
}

at::Tensor joint_linear(const at::Tensor& x, c10::ArrayRef<Linear> layers) {
  std::vector<at::Tensor> weights, biases;
  for (const Linear& layer : layers) {
    weights.push_back(layer->weight.is_cuda() ? layer->weight : for_products(layer->weight));
    biases.push_back(layer->bias.is_cuda() ? layer->bias : for_products(layer->bias));
  }
  return linear(x, at::cat(weights), at::cat(biases));
}

}  // namespace strobe::nn
