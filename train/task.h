// What the training loop needs to know of a model and its data. The loop (train/trainer.h) knows nothing else.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>

#include "train/optimizer.h"
#include "train/value.h"

namespace torch::nn {
class Module;
}

namespace strobe::train {

/// The loss of one batch and what it is counted by.
struct BatchLoss {
  at::Tensor loss_sum;        // 0-d fp32, differentiable: summed over the counted items, not averaged
  int64_t count = 0;          // what the sum is divided by: non-pad target tokens
  int64_t source_tokens = 0;  // without padding, for rates
  int64_t slots = 0;          // places computed on both sides, padding included
  int64_t padding = 0;        // of which padding
};

/// What one pass over the validation data found.
struct Validation {
  double loss = 0.0;   // per counted item
  double score = 0.0;  // higher is better; decides the best checkpoint and early stopping
};

/// A model with its data. All randomness of the order of batches comes from (seed, epoch), so that a run can be resumed
/// at any batch; dropout draws from torch's generators.
class Task {
 public:
  virtual ~Task() = default;

  virtual torch::nn::Module& model() = 0;
  virtual std::string score_name() const = 0;  // as printed after the validation loss, e.g. "Bleu Score"

  /// Puts the batches of the epoch (counted from 1) in order and returns how many there are.
  virtual int64_t begin_epoch(int64_t epoch) = 0;

  /// The parameters with their weight decay, in the order that the optimiser's state keeps. Frozen ones are left out of
  /// the groups by the optimiser. Matrices decay, biases and norms do not, unless a task says otherwise.
  virtual std::vector<ParameterGroup> parameter_groups(double weight_decay);

  /// Comes before the forward passes of an update: this process's share of its batches. Autocast is set as for them.
  virtual void begin_update(std::span<const int64_t> /*batches*/) {}

  /// Comes after each update of the weights.
  virtual void after_update() {}

  /// Whether forward, begin_update and validate speak with the other processes. Then all of them validate, and memory
  /// that runs out in one of several processes ends the run: the others could not be told in the midst of a collective.
  virtual bool works_together() const { return false; }

  /// The loss of batch `index` of the present epoch, on the training device, in the mode the module is in. The loop has
  /// set autocast and gradient mode.
  virtual BatchLoss forward(int64_t index) = 0;

  /// One pass over the validation data, without touching parameters, optimiser or random state.
  virtual Validation validate() = 0;

  /// What a checkpoint must hold besides weights to be used alone: configuration, vocabularies. A dict.
  virtual Value describe() const = 0;
};

}  // namespace strobe::train
