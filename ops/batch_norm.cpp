#include "ops/batch_norm.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/batch_norm.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <optional>
#include <tuple>
#include <vector>

#include "strobe/batch_norm.h"

namespace strobe::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<at::Tensor>;

template <class Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

OptionalTensor or_none(const at::Tensor& t) { return t.defined() ? OptionalTensor(t) : std::nullopt; }

class BatchNormFunction : public torch::autograd::Function<BatchNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const OptionalTensor& residual,
                            const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& running_mean,
                            const at::Tensor& running_var, const BatchNormOptions& options) {
    static const auto op = find<std::tuple<at::Tensor, at::Tensor, at::Tensor>(
        const at::Tensor&, const OptionalTensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
        const at::Tensor&, double, double, bool)>("strobe::batch_norm_forward");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [out, mean, rstd] =
        op.call(x, residual, weight, bias, running_mean, running_var, options.momentum, options.eps, options.rectifies);
    ctx->save_for_backward({x, residual ? out : at::Tensor(), weight, bias, mean, rstd});
    ctx->saved_data["rectifies"] = options.rectifies;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    static const auto op = find<std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>(
        const at::Tensor&, const at::Tensor&, const OptionalTensor&, const at::Tensor&, const at::Tensor&,
        const at::Tensor&, const at::Tensor&, bool)>("strobe::batch_norm_backward");
    const variable_list saved = ctx->get_saved_variables();
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [grad_x, grad_residual, grad_weight, grad_bias] =
        op.call(grads[0], saved[0], or_none(saved[1]), saved[2], saved[3], saved[4], saved[5],
                ctx->saved_data["rectifies"].toBool());
    return {grad_x,       saved[1].defined() ? grad_residual : at::Tensor(),
            grad_weight,  grad_bias,
            at::Tensor(), at::Tensor(),
            at::Tensor()};
  }
};

bool fuses_batch_norm(const at::Tensor& x) {
  const bool is_16_bit = x.scalar_type() == at::kHalf || x.scalar_type() == at::kBFloat16;
  return x.is_cuda() && is_16_bit && x.dim() == 4 && x.is_contiguous(at::MemoryFormat::ChannelsLast) &&
         x.size(1) % kPointwiseVector == 0 && x.size(1) <= kBatchNormMaxWidth && x.numel() > x.size(1);
}

}  // namespace

at::Tensor batch_norm(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, const at::Tensor& bias,
                      const at::Tensor& running_mean, const at::Tensor& running_var, const BatchNormOptions& options) {
  if (fuses_batch_norm(x)) {
    return BatchNormFunction::apply(x, or_none(residual), weight, bias, running_mean, running_var, options);
  }
  at::Tensor out = at::batch_norm(x, weight, bias, running_mean, running_var, /*training=*/true, options.momentum,
                                  options.eps, /*cudnn_enabled=*/true);
  if (residual.defined()) out.add_(residual);
  return options.rectifies ? out.relu_() : out;
}

TORCH_LIBRARY_FRAGMENT(strobe, m) {
  const std::vector<at::Tag> pure = {at::Tag::pt2_compliant_tag};
  m.def(
      torch::schema("batch_norm_forward(Tensor x, Tensor? residual, Tensor weight, Tensor bias, Tensor(a!) "
                    "running_mean, Tensor(b!) running_var, float momentum, float eps, bool rectifies) -> (Tensor out, "
                    "Tensor mean, Tensor rstd)"),
      pure);
  m.def(torch::schema("batch_norm_backward(Tensor grad_out, Tensor x, Tensor? out, Tensor weight, Tensor bias, Tensor "
                      "mean, Tensor rstd, bool rectifies) -> (Tensor grad_x, Tensor grad_residual, Tensor grad_weight, "
                      "Tensor grad_bias)"),
        pure);
}

}  // namespace strobe::ops
