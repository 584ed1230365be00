// A regression by a network of two layers, small enough that a test trains it many times.
#pragma once

#include <torch/nn/module.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "train/task.h"
#include "train/trainer.h"

namespace strobe::train {

class TinyTask : public Task {
 public:
  struct Options {
    int64_t batches = 8;
    int64_t merge = 1;  // as many of the batches in one
    double dropout = 0.0;
    at::ScalarType dtype = at::kFloat;
    at::Device device = at::kCPU;
  };
  TinyTask();
  explicit TinyTask(const Options& options);

  struct Example {
    at::Tensor inputs, targets;
  };
  /// Batch `index` of the present epoch.
  Example batch(int64_t index) const;

  /// Called before each forward with the epoch and the index of the batch.
  std::function<void(int64_t epoch, int64_t index)> on_forward;
  /// Batches whose loss is multiplied by what this returns.
  std::function<double(int64_t epoch, int64_t index)> loss_factor;
  /// What the validations find, one after the other; the negative loss when they are used up.
  std::vector<double> scores;

  torch::nn::Module& model() override { return *model_; }
  std::string score_name() const override { return "Bleu Score"; }
  int64_t begin_epoch(int64_t epoch) override;
  BatchLoss forward(int64_t index) override;
  Validation validate() override;
  Value describe() const override;

  bool was_training = false;        // the module's mode in the last forward
  bool validated_training = false;  // and in the last validation

 private:
  at::Tensor run(const at::Tensor& inputs) const;

  Options options_;
  std::shared_ptr<torch::nn::Module> model_;
  int64_t epoch_ = 0;
  std::vector<int64_t> order_;
  std::size_t validations_ = 0;
};

std::string read_text(const std::filesystem::path& file);

/// Options for a TinyTask: AdamW at a constant rate, two epochs.
TrainerOptions tiny_options(const std::filesystem::path& folder);

/// Trains with a log in the folder that nothing prints.
TrainResult train_quietly(Task& task, const TrainerOptions& options);

/// The weights, one long vector in float64.
at::Tensor flat_weights(const torch::nn::Module& module);

}  // namespace strobe::train
