// Translation as a task of the training loop.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "nmt/checkpoint.h"
#include "nmt/dataset.h"
#include "nmt/graphed_loss.h"
#include "nmt/translate.h"
#include "train/task.h"

namespace strobe::nmt {

struct TrainingTaskOptions {
  BatchLimits batch;             // of the training data
  double label_smoothing = 0.0;  // of the training loss
  uint64_t seed = 0;             // of the order of the batches
  bool graphs = false;           // steps as CUDA graphs, where the device has them
  TranslateOptions validation;
};

class TrainingTask : public train::Task {
 public:
  /// The model is on the training device. Both sets stay as they are.
  TrainingTask(TranslationModel model, Dataset train, Dataset dev, const TrainingTaskOptions& options);

  torch::nn::Module& model() override { return *model_.model; }
  std::string score_name() const override { return "Bleu Score"; }
  int64_t begin_epoch(int64_t epoch) override;
  train::BatchLoss forward(int64_t index) override;
  /// Loss per target token without label smoothing, and BLEU.
  train::Validation validate() override;
  train::Value describe() const override;

 private:
  TranslationModel model_;
  Dataset train_, dev_;
  TrainingTaskOptions options_;
  at::Device device_;
  std::optional<GraphedLoss> graphed_loss_;
  std::vector<std::vector<int64_t>> batches_;  // of the present epoch
};

}  // namespace strobe::nmt
