#include "train/updater.h"

#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/nn/module.h>

#include <bit>

namespace strobe::train {
namespace {

/// torch.amp.GradScaler's initial scale, meant for a mean loss; ours is a sum.
constexpr double kInitialScale = 65536.0;

NamedTensors named_parameters(const torch::nn::Module& module) {
  NamedTensors parameters;
  for (const auto& item : module.named_parameters()) parameters.emplace_back(item.key(), item.value());
  return parameters;
}

}  // namespace

Updater::Updater(Task& task, const TrainerOptions& options)
    : task_(task),
      device_(options.device),
      precision_(options.precision),
      clip_norm_(options.clip_norm),
      optimizer_(named_parameters(task.model()), options.optimizer) {
  set_totals({});
}

void Updater::accumulate(int64_t batch, EpochTotals& totals) {
  BatchLoss loss;
  {
    const AutocastGuard autocast(device_.type(), precision_);
    loss = task_.forward(batch);
  }
  if (precision_ == Precision::kFp16 && !scaler_) {
    const auto items = static_cast<uint64_t>(std::max<int64_t>(loss.count, 1));
    scaler_.emplace(device_, kInitialScale / static_cast<double>(std::bit_ceil(items)));
  }
  (scaler_ ? loss.loss_sum.mul(scaler_->scale()) : loss.loss_sum).backward();

  const at::Tensor value = loss.loss_sum.detach().to(at::kDouble);
  loss_sum_.add_(value.nan_to_num(0.0, 0.0, 0.0));
  loss_count_.add_(at::isfinite(value), static_cast<double>(loss.count));
  count_ += loss.count;
  totals.target_tokens += loss.count;
  totals.source_tokens += loss.source_tokens;
  totals.slots += loss.slots;
  totals.padding += loss.padding;
}

void Updater::apply(double lr, EpochTotals& totals) {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> gradients = optimizer_.gradients();
  const at::Tensor norm = gradient_norm(gradients);
  at::Tensor scale = at::full({}, 1.0 / static_cast<double>(count_), norm.options());
  if (scaler_) scale = scale.div(scaler_->scale());
  const at::Tensor found_inf = at::isfinite(norm).logical_not().to(at::kFloat);
  scale_and_clip(gradients, norm, scale, clip_norm_);
  optimizer_.step(lr, found_inf);
  if (scaler_) scaler_->update(found_inf);
  not_finite_.add_(found_inf);
  totals.updates += 1;
  discard();
}

void Updater::discard() {
  optimizer_.clear_gradients();
  count_ = 0;
}

void Updater::set_totals(const EpochTotals& totals) {
  const auto options = at::device(device_).dtype(at::kDouble);
  loss_sum_ = at::full({}, totals.loss_sum, options);
  loss_count_ = at::full({}, totals.loss_count, options);
  not_finite_ = at::full({}, static_cast<double>(totals.not_finite), options);
}

void Updater::read_totals(EpochTotals& totals) const {
  totals.loss_sum = loss_sum_.item<double>();
  totals.loss_count = loss_count_.item<double>();
  totals.not_finite = static_cast<int64_t>(not_finite_.item<double>());
}

Value Updater::scaler_state() const { return scaler_ ? Value(scaler_->state_dict()) : Value(); }

void Updater::load_state(const Dict& optimizer, const Value& scaler) {
  optimizer_.load_state_dict(optimizer);
  if (precision_ != Precision::kFp16 || scaler.is_none()) return;
  scaler_.emplace(device_, kInitialScale);
  scaler_->load_state_dict(scaler.as_dict());
}

}  // namespace strobe::train
