#include "clip/model/batch_norm.h"

#include <ATen/ops/batch_norm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/native_batch_norm_backward.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/var_mean.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

#include "ops/batch_norm.h"

namespace strobe::clip {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr double kMomentum = 0.1;
constexpr double kEps = 1e-5;

/// Statistics of half precision are kept in single.
at::ScalarType statistics_dtype(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

struct Moments {
  at::Tensor mean, variance;  // [C], biased
  at::Tensor count;           // [1]
};

/// Of all processes' batches (Chan, Golub & LeVeque 1979, equation 2.1).
Moments moments_over_all(const at::Tensor& x, const GatherRows& gather) {
  const int64_t channels = x.size(1);
  const auto [variance, mean] =
      at::var_mean(x.to(statistics_dtype(x)), at::OptionalIntArrayRef({0, 2, 3}), /*correction=*/0);
  const at::Tensor count = at::full({1}, static_cast<double>(x.numel() / channels), mean.options());
  const at::Tensor rows = gather(at::cat({mean, variance, count}));
  const at::Tensor means = rows.narrow(1, 0, channels), variances = rows.narrow(1, channels, channels);
  const at::Tensor shares = rows.narrow(1, 2 * channels, 1) / rows.narrow(1, 2 * channels, 1).sum(0, true);
  const at::Tensor joint_mean = (shares * means).sum(0);
  return {joint_mean, (shares * (variances + (means - joint_mean).square())).sum(0),
          rows.select(1, 2 * channels).sum(0, true)};
}

struct Gather : torch::CustomClassHolder {
  explicit Gather(std::shared_ptr<const GatherRows> the_rows) : rows(std::move(the_rows)) {}
  std::shared_ptr<const GatherRows> rows;
};

/// (x - mean) / sqrt(variance + eps) * weight + bias, where the statistics depend on x.
struct NormalizeOverAll : torch::autograd::Function<NormalizeOverAll> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& bias, const Moments& moments, c10::intrusive_ptr<Gather> gather) {
    context->save_for_backward({x, weight, moments.mean, moments.variance, moments.count});
    context->saved_data["gather"] = c10::IValue::make_capsule(std::move(gather));
    return at::batch_norm(x, weight, bias, moments.mean, moments.variance, /*training=*/false, kMomentum, kEps,
                          /*cudnn_enabled=*/false);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &mean = saved[2], &variance = saved[3];
    const auto gather = c10::static_intrusive_pointer_cast<Gather>(context->saved_data["gather"].toCapsule());
    const at::Tensor rstd = at::rsqrt(variance + kEps);
    // With given statistics, which the CPU reads from one pair of arguments and CUDA from the other, the gradients of
    // weight and bias are this process's sums of dy xhat and of dy.
    const auto [unused, dweight, dbias] = at::native_batch_norm_backward(
        gradients[0], x, weight, mean, variance, mean, rstd, /*train=*/false, kEps, {false, true, true});
    const at::Tensor sums = (*gather->rows)(at::cat({dbias, dweight})).sum(0);
    const at::Tensor dx = input_gradient(gradients[0], x, weight, mean, rstd, sums / saved[4]);
    return {dx, dweight, dbias, at::Tensor(), at::Tensor()};
  }

 private:
  /// means: of dy, then of dy xhat, over all processes.
  static at::Tensor input_gradient(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight,
                                   const at::Tensor& mean, const at::Tensor& rstd, const at::Tensor& means) {
    const auto each = [](const at::Tensor& channels) { return channels.view({1, -1, 1, 1}); };
    const at::Tensor dy_mean = means.narrow(0, 0, mean.size(0));
    const at::Tensor slope = rstd * means.narrow(0, mean.size(0), mean.size(0));
    return ((dy - each(dy_mean) - (x - each(mean)) * each(slope)) * each(weight * rstd)).to(x.scalar_type());
  }
};

}  // namespace

BatchNormImpl::BatchNormImpl(int64_t channels)
    : weight_(register_parameter("weight", at::ones({channels}))),
      bias_(register_parameter("bias", at::zeros({channels}))),
      running_mean_(register_buffer("running_mean", at::zeros({channels}))),
      running_var_(register_buffer("running_var", at::ones({channels}))),
      num_batches_tracked_(register_buffer("num_batches_tracked", at::scalar_tensor(0, at::kLong))) {}

void BatchNormImpl::synchronise(const GatherRows& gather) { gather_ = std::make_shared<const GatherRows>(gather); }

at::Tensor BatchNormImpl::forward(const at::Tensor& x, bool rectifies, const at::Tensor& residual) {
  const bool own_statistics = is_training() && !frozen_;
  if (own_statistics) num_batches_tracked_.add_(1);
  if (own_statistics && !gather_) {
    return ops::batch_norm(x, residual, weight_, bias_, running_mean_, running_var_,
                           {.momentum = kMomentum, .eps = kEps, .rectifies = rectifies});
  }
  at::Tensor out = own_statistics ? forward_over_all(x)
                                  : at::batch_norm(x, weight_, bias_, running_mean_, running_var_, /*training=*/false,
                                                   kMomentum, kEps, /*cudnn_enabled=*/true);
  if (residual.defined()) out.add_(residual);
  return rectifies ? out.relu_() : out;
}

at::Tensor BatchNormImpl::forward_over_all(const at::Tensor& x) {
  Moments moments;
  {
    const at::NoGradGuard no_grad;
    moments = moments_over_all(x, *gather_);
    const at::Tensor unbiased = moments.variance * (moments.count / (moments.count - 1));
    running_mean_.lerp_(moments.mean.to(running_mean_.scalar_type()), kMomentum);
    running_var_.lerp_(unbiased.to(running_var_.scalar_type()), kMomentum);
  }
  return NormalizeOverAll::apply(x, weight_, bias_, moments, c10::make_intrusive<Gather>(gather_));
}

}  // namespace strobe::clip
