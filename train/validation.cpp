#include "train/validation.h"

#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/nn/module.h>

#include <cmath>

#include "train/precision.h"

namespace strobe::train {
namespace {

bool is_validated(const RunState& state) { return state.validated_update == state.update; }

bool is_multiple(int64_t number, int64_t interval) { return interval > 0 && number > 0 && number % interval == 0; }

}  // namespace

bool is_due_by_updates(const TrainerOptions& options, const RunState& state) {
  return is_multiple(state.update, options.validate_every_updates) && !is_validated(state);
}

bool is_due_by_epochs(const TrainerOptions& options, const RunState& state, int64_t epoch) {
  return is_multiple(epoch, options.validate_every) && !is_validated(state);
}

bool is_due_at_end(const TrainerOptions& options, const RunState& state) {
  return (options.validate_every > 0 || options.validate_every_updates > 0) && !is_validated(state);
}

Validation run_validation(Task& task, const TrainerOptions& options) {
  const at::NoGradGuard no_grad;
  const AutocastGuard autocast(options.device.type(), options.precision);
  Validation validation;
  if (options.ranks->is_root() || task.works_together()) {
    task.model().eval();
    validation = task.validate();
    task.model().train();
  }
  at::Tensor values = at::tensor({validation.loss, validation.score}, at::kDouble);
  options.ranks->broadcast(values);
  return {values[0].item<double>(), values[1].item<double>()};
}

bool note_score(RunState& state, int64_t epoch, double score) {
  state.validated_update = state.update;
  const bool is_best = state.best_score ? score > *state.best_score : !std::isnan(score);
  if (is_best) {
    state.best_score = score;
    state.best_epoch = epoch;
    state.best_update = state.update;
    state.bad_validations = 0;
  } else {
    state.bad_validations += 1;
  }
  return is_best;
}

bool is_out_of_patience(const TrainerOptions& options, const RunState& state) {
  return options.patience > 0 && state.bad_validations >= options.patience;
}

}  // namespace strobe::train
