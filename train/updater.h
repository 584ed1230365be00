// From batches to updates of the weights: forward, backward, accumulation, loss scaling, clipping, the optimiser's
// step.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>

#include "train/distributed/gradient_reducer.h"
#include "train/distributed/tally.h"
#include "train/optimizer.h"
#include "train/precision.h"
#include "train/run_state.h"
#include "train/task.h"
#include "train/trainer_options.h"

namespace strobe::train {

/// Gradients of the batches' summed losses are added up, over all processes, and divided once, at the update, by the
/// number of items they were counted over: k batches accumulated, or k processes, are one batch of k times the size.
/// Nothing here waits for the device but read_totals and state_dict.
class Updater {
 public:
  Updater(Task& task, const TrainerOptions& options);

  /// Forward and backward of this process's share of the batches [begin, end) of the present epoch: begin + rank,
  /// begin + rank + size, ... Afterwards the gradients are the sums over all processes, which all call this. Returns
  /// what all have counted; running out of memory is counted too, and then the update is to be discarded everywhere.
  /// `signal` is asked for the signal that this process has received (train/signals.h), 0 for none.
  Tally accumulate(
      int64_t begin, int64_t end, const std::function<int64_t()>& signal = [] { return 0; });

  /// One update with what has been accumulated, counted over `all`, which accumulate returned. Where a gradient is
  /// not finite, weights and optimiser stay as they are.
  void apply(double lr, const Tally& all, EpochTotals& totals);

  /// Drops what has been accumulated.
  void discard();

  /// Starts an epoch's device-side sums at what `totals` says; brings `totals` up to date with them.
  void set_totals(const EpochTotals& totals);
  void read_totals(EpochTotals& totals) const;

  Dict optimizer_state() const { return optimizer_.state_dict(); }
  Value scaler_state() const;  // None without loss scaling
  void load_state(const Dict& optimizer, const Value& scaler);

 private:
  /// Whether memory that runs out here ends the run.
  bool fails_together() const { return task_.works_together() && ranks_.size() > 1; }
  template <typename F>
  void count_out_of_memory(Tally& tally, const F& f);
  at::Tensor forward(int64_t batch, Tally& tally);
  void backward(at::Tensor loss, bool is_last, Tally& tally);

  Task& task_;
  Communicator& ranks_;
  at::Device device_;
  Precision precision_;
  double clip_norm_;
  Optimizer optimizer_;
  GradientReducer reducer_;
  std::optional<LossScaler> scaler_;
  // fp64 on the device: [summed losses, the items they count] of the epoch's updates, of this process's part of the
  // present one, and 0-d the updates whose gradients were not finite.
  at::Tensor losses_, pending_, not_finite_;
};

}  // namespace strobe::train
