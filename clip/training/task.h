// Chinese-CLIP's training as the loop of train/ sees it.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "clip/data/dataset.h"
#include "clip/model/clip.h"
#include "clip/training/batch_source.h"
#include "clip/training/loss.h"
#include "clip/training/validation.h"
#include "train/logger.h"
#include "train/task.h"

namespace strobe::clip {

struct TaskOptions {
  LossOptions loss;
  double mask_ratio = 0.0;   // of a ViT's patches, left out in training (Li et al. 2022, arXiv 2212.00794)
  int64_t accumulation = 1;  // batches an update and process
};

/// What an update says of itself, on the device.
struct UpdateFigures {
  at::Tensor loss, image_to_text, text_to_image;  // of the last batch's forward; the accuracies where asked for
};

/// Several batches an update make one large batch (the scheme of open_clip): their features are computed without
/// gradient first, then every batch is computed again with its own features in the places of those. Both passes draw
/// the same random numbers, and running statistics take each batch once. Batches at the end of an epoch that do not
/// make a whole update are left out.
class ClipTask : public train::Task {
 public:
  struct Parts {
    Clip model;
    Clip teacher{nullptr};  // null: no distillation
    std::unique_ptr<BatchSource> training;
    std::optional<Validator> validator;
  };
  ClipTask(Parts parts, const TaskOptions& options, at::Device device, std::shared_ptr<train::Communicator> ranks);

  torch::nn::Module& model() override { return *parts_.model; }
  std::string score_name() const override { return "Mean Recall"; }
  int64_t begin_epoch(int64_t epoch) override;  // counts the batches of all processes
  std::vector<train::ParameterGroup> parameter_groups(double weight_decay) override;
  void begin_update(std::span<const int64_t> batches) override;
  train::BatchLoss forward(int64_t index) override;
  void after_update() override;
  bool works_together() const override { return true; }
  train::Validation validate() override;
  train::Value describe() const override { return train::Dict(); }

  int64_t updates_per_epoch() const { return batches_per_epoch_ / options_.accumulation; }
  const BatchSource& training() const { return *parts_.training; }
  const UpdateFigures& last_update() const { return figures_; }
  const ValidationResult& last_validation() const { return validation_; }
  double logit_scale() const { return logit_scale_.item<double>(); }
  double data_seconds() const { return data_seconds_; }  // waited for batches since the start

 private:
  struct Pending {
    int64_t index = 0;
    Batch batch;
    at::Tensor image, text, teacher;  // the features of the pass without gradient
    train::Dict random;               // as it was before that pass
  };
  Pending load(int64_t index);
  void cache_features();
  at::Tensor teacher_features(const Batch& batch);
  PairFeatures features(const Pending& pending);
  at::Tensor substituted(const at::Tensor& own, at::Tensor Pending::*cached, int64_t index) const;

  Parts parts_;
  TaskOptions options_;
  at::Device device_;
  std::shared_ptr<train::Communicator> ranks_;
  at::Tensor logit_scale_;
  int64_t batches_per_epoch_ = 0;  // of this process
  std::vector<Pending> pending_;   // the batches of the present update
  UpdateFigures figures_;
  ValidationResult validation_;
  double data_seconds_ = 0.0;
};

}  // namespace strobe::clip
