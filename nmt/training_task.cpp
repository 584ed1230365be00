#include "nmt/training_task.h"

#include <utility>

#include "nmt/evaluate.h"
#include "nmt/recurring_batch.h"
#include "strobe/types.h"

namespace strobe::nmt {

TrainingTask::TrainingTask(TranslationModel model, Dataset train, Dataset dev, const TrainingTaskOptions& options)
    : model_(std::move(model)),
      train_(std::move(train)),
      dev_(std::move(dev)),
      options_(options),
      device_(model_.model->parameters().front().device()) {
  nmt::validate(options_.validation.search);
  if (!(options_.label_smoothing >= 0.0 && options_.label_smoothing < 1.0)) {
    throw Error("translation training: label_smoothing must be at least 0 and below 1, got " +
                std::to_string(options_.label_smoothing));
  }
  if (options.graphs && train::StepGraphs::available(device_)) {
    graphed_loss_.emplace(model_.model, options_.label_smoothing);
  }
}

int64_t TrainingTask::begin_epoch(int64_t epoch) {
  batches_ = bucket_batches(train_.pairs, options_.batch, options_.seed, epoch);
  return static_cast<int64_t>(batches_.size());
}

train::BatchLoss TrainingTask::forward(int64_t index) {
  const std::vector<int64_t>& indices = batches_.at(index);
  const Batch batch =
      graphed_loss_ ? make_recurring_batch(train_.pairs, indices, device_) : make_batch(train_.pairs, indices, device_);
  train::BatchLoss result;
  result.loss_sum = graphed_loss_ ? (*graphed_loss_)(batch) : model_.model->loss(batch, options_.label_smoothing);
  result.count = batch.target_tokens;
  result.source_tokens = batch.source_tokens;
  const int64_t tokens = batch.source_tokens + batch.target_tokens;
  result.slots = model_.model->packs_tokens() ? batch.source_real.slots.numel() + batch.target_real.slots.numel()
                                              : batch.source.numel() + batch.target_in.numel();
  result.padding = result.slots - tokens;
  return result;
}

train::Validation TrainingTask::validate() {
  const Evaluation evaluation = evaluate(model_, dev_, options_.validation);
  return {evaluation.loss, evaluation.bleu.score};
}

train::Value TrainingTask::describe() const {
  return nmt::describe(model_.model->config(), model_.vocabularies, model_.bleu_tokenizer);
}

}  // namespace strobe::nmt
