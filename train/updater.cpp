#include "train/updater.h"

#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <algorithm>
#include <bit>
#include <utility>

#include "train/device.h"

namespace strobe::train {
namespace {

/// torch.amp.GradScaler's initial scale, meant for a mean loss; ours is a sum.
constexpr double kInitialScale = 65536.0;

constexpr int64_t kNone = -1;  // instead of a batch

}  // namespace

/// Runs `f`; where memory runs out, that is only noted, unless the other processes wait for this one.
template <typename F>
void Updater::count_out_of_memory(Tally& tally, const F& f) {
  try {
    f();
  } catch (const std::exception& error) {
    if (!is_out_of_memory(error) || fails_together()) throw;
    tally.out_of_memory = 1;
  }
}

Updater::Updater(Task& task, const TrainerOptions& options)
    : task_(task),
      ranks_(*options.ranks),
      device_(options.device),
      precision_(options.precision),
      clip_norm_(options.clip_norm),
      optimizer_(task.parameter_groups(options.optimizer.weight_decay), options.optimizer),
      reducer_(optimizer_.parameters(), ranks_),
      pending_(at::zeros({2}, at::device(device_).dtype(at::kDouble))) {
  set_totals({});
}

Tally Updater::accumulate(int64_t begin, int64_t end, const std::function<int64_t()>& signal) {
  Tally tally;
  const int64_t size = ranks_.size();
  std::vector<int64_t> own;
  for (int64_t batch = begin + ranks_.rank(); batch < end; batch += size) own.push_back(batch);
  count_out_of_memory(tally, [&] {
    const AutocastGuard autocast(device_.type(), precision_);
    task_.begin_update(own);
  });
  own.resize(static_cast<std::size_t>((end - begin + size - 1) / size), kNone);
  std::optional<Agreement> agreement;
  const auto agree = [&] {
    tally.signal = signal();
    agreement.emplace(tally, ranks_);
  };
  for (std::size_t i = 0; i < own.size(); ++i) {
    const bool is_last = i + 1 == own.size();
    at::Tensor loss = forward(own[i], tally);
    // Where no process can run out of memory by itself, all is counted now: the others hear of it during backward.
    if (is_last && fails_together()) agree();
    backward(std::move(loss), is_last, tally);
  }
  if (!agreement) agree();
  return agreement->wait();
}

/// The loss, scaled; undefined where there is no batch or no memory.
at::Tensor Updater::forward(int64_t batch, Tally& tally) {
  BatchLoss loss;
  if (batch != kNone && tally.out_of_memory == 0) {
    count_out_of_memory(tally, [&] {
      const AutocastGuard autocast(device_.type(), precision_);
      loss = task_.forward(batch);
    });
  }
  if (precision_ == Precision::kFp16 && !scaler_) {
    const auto items = static_cast<uint64_t>(std::max<int64_t>(ranks_.max(loss.count), 1));
    scaler_.emplace(device_, kInitialScale / static_cast<double>(std::bit_ceil(items)));
  }
  if (!loss.loss_sum.defined()) return {};

  const at::Tensor value = loss.loss_sum.detach().to(at::kDouble);
  pending_[0].add_(value.nan_to_num(0.0, 0.0, 0.0));
  pending_[1].add_(at::isfinite(value), static_cast<double>(loss.count));
  tally.target_tokens += loss.count;
  tally.source_tokens += loss.source_tokens;
  tally.slots += loss.slots;
  tally.padding += loss.padding;
  return scaler_ ? loss.loss_sum.mul(scaler_->scale()) : loss.loss_sum;
}

void Updater::backward(at::Tensor loss, bool is_last, Tally& tally) {
  count_out_of_memory(tally, [&] {
    if (is_last) {
      reducer_.backward_and_sum(std::move(loss));
    } else if (loss.defined()) {
      reducer_.backward(loss);
    }
  });
}

void Updater::apply(double lr, const Tally& all, EpochTotals& totals) {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> gradients = optimizer_.gradients();
  const at::Tensor norm = gradient_norm(gradients);
  const auto items = static_cast<double>(std::max<int64_t>(all.target_tokens, 1));
  at::Tensor scale = at::full({}, 1.0 / items, norm.options());
  if (scaler_) scale = scale.div(scaler_->scale());
  const at::Tensor found_inf = at::isfinite(norm).logical_not().to(at::kFloat);
  scale_and_clip(gradients, norm, scale, clip_norm_);
  optimizer_.step(lr, found_inf);
  if (scaler_) scaler_->update(found_inf);
  not_finite_.add_(found_inf);
  ranks_.sum(pending_);
  losses_.add_(pending_);
  task_.after_update();
  totals.updates += 1;
  totals.target_tokens += all.target_tokens;
  totals.source_tokens += all.source_tokens;
  totals.slots += all.slots;
  totals.padding += all.padding;
  discard();
}

void Updater::discard() {
  optimizer_.clear_gradients();
  pending_.zero_();
}

void Updater::set_totals(const EpochTotals& totals) {
  const auto options = at::device(device_).dtype(at::kDouble);
  losses_ = at::tensor({totals.loss_sum, totals.loss_count}, at::kDouble).to(device_);
  not_finite_ = at::full({}, static_cast<double>(totals.not_finite), options);
}

void Updater::read_totals(EpochTotals& totals) const {
  const at::Tensor losses = losses_.cpu();
  totals.loss_sum = losses[0].item<double>();
  totals.loss_count = losses[1].item<double>();
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
