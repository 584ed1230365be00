// From batches to updates of the weights: forward, backward, accumulation, loss scaling, clipping, the optimiser's
// step.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "train/optimizer.h"
#include "train/precision.h"
#include "train/run_state.h"
#include "train/task.h"
#include "train/trainer_options.h"

namespace strobe::train {

/// Gradients of the batches' summed losses are added up and divided once, at the update, by the number of items they
/// were counted over: k batches accumulated are one batch of k times the size. Nothing here waits for the device but
/// read_totals and state_dict.
class Updater {
 public:
  Updater(Task& task, const TrainerOptions& options);

  /// Forward and backward of one batch of the present epoch; counts it in `totals`.
  void accumulate(int64_t batch, EpochTotals& totals);

  /// One update with what has been accumulated. Where a gradient is not finite, weights and optimiser stay as they are.
  void apply(double lr, EpochTotals& totals);

  /// Drops what has been accumulated.
  void discard();

  /// Starts an epoch's device-side sums at what `totals` says; brings `totals` up to date with them.
  void set_totals(const EpochTotals& totals);
  void read_totals(EpochTotals& totals) const;

  Dict optimizer_state() const { return optimizer_.state_dict(); }
  Value scaler_state() const;  // None without loss scaling
  void load_state(const Dict& optimizer, const Value& scaler);

 private:
  Task& task_;
  at::Device device_;
  Precision precision_;
  double clip_norm_;
  Optimizer optimizer_;
  std::optional<LossScaler> scaler_;
  int64_t count_ = 0;  // items behind the accumulated gradients
  // 0-d fp64 on the device: summed losses, the items they count, updates whose gradients were not finite.
  at::Tensor loss_sum_, loss_count_, not_finite_;
};

}  // namespace strobe::train
