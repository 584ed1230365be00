#include "clip/training/task.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <cmath>
#include <utility>

#include "clip/training/decay.h"
#include "clip/training/feature_gather.h"
#include "strobe/types.h"
#include "train/device.h"

namespace strobe::clip {
namespace {

/// ln 100 as the original rounds it (Radford et al. 2021, section 2.5).
constexpr double kLargestLogitScale = 4.6052;

/// Puts the buffers of a module back to what they were.
class BufferGuard {
 public:
  explicit BufferGuard(const torch::nn::Module& module) : buffers_(module.buffers()) {
    for (const at::Tensor& buffer : buffers_) before_.push_back(buffer.clone());
  }
  ~BufferGuard() {
    for (std::size_t i = 0; i < buffers_.size(); ++i) buffers_[i].copy_(before_[i]);
  }
  BufferGuard(const BufferGuard&) = delete;
  BufferGuard& operator=(const BufferGuard&) = delete;

 private:
  std::vector<at::Tensor> buffers_, before_;
};

}  // namespace

ClipTask::ClipTask(Parts parts, const TaskOptions& options, at::Device device,
                   std::shared_ptr<train::Communicator> ranks)
    : parts_(std::move(parts)),
      options_(options),
      device_(device),
      ranks_(std::move(ranks)),
      logit_scale_(parts_.model->named_parameters(/*recurse=*/false)["logit_scale"]) {}

int64_t ClipTask::begin_epoch(int64_t epoch) {
  const int64_t batches = parts_.training->begin_epoch(epoch);
  batches_per_epoch_ = batches / options_.accumulation * options_.accumulation;
  if (batches_per_epoch_ == 0) {
    throw Error("training: expected at least " + std::to_string(options_.accumulation) +
                " batches (--accum-freq) in an epoch, found " + std::to_string(batches));
  }
  return batches_per_epoch_ * ranks_->size();
}

std::vector<train::ParameterGroup> ClipTask::parameter_groups(double weight_decay) {
  return decay_groups(*parts_.model, weight_decay);
}

ClipTask::Pending ClipTask::load(int64_t index) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point before = Clock::now();
  Pending pending;
  pending.index = index;
  pending.batch = parts_.training->batch(index / ranks_->size());
  data_seconds_ += std::chrono::duration<double>(Clock::now() - before).count();
  return pending;
}

void ClipTask::begin_update(std::span<const int64_t> batches) {
  pending_.clear();
  for (const int64_t index : batches) pending_.push_back(load(index));
  if (options_.accumulation > 1) cache_features();
}

void ClipTask::cache_features() {
  const at::NoGradGuard no_grad;
  const BufferGuard statistics(*parts_.model);
  for (Pending& pending : pending_) {
    pending.random = train::random_state(device_);
    const ClipOutput output =
        parts_.model->forward(pending.batch.images, pending.batch.texts, options_.mask_ratio, pending.batch.lengths);
    pending.image = output.image_features;
    pending.text = output.text_features;
    pending.teacher = teacher_features(pending.batch);
  }
}

at::Tensor ClipTask::teacher_features(const Batch& batch) {
  if (parts_.teacher.is_empty()) return {};
  const at::NoGradGuard no_grad;
  return parts_.teacher->encode_image(batch.images);
}

/// The features of all batches of the update, those of batch `index` being `own`, whose gradient counts for as many
/// batches as there are: the loop averages over them, but the loss of the large batch is in every pass whole.
at::Tensor ClipTask::substituted(const at::Tensor& own, at::Tensor Pending::*cached, int64_t index) const {
  std::vector<at::Tensor> all;
  for (const Pending& pending : pending_) {
    const bool is_own = pending.index == index;
    all.push_back(is_own ? scale_gradient(own, static_cast<double>(pending_.size())) : pending.*cached);
  }
  return at::cat(all);
}

PairFeatures ClipTask::features(const Pending& pending) {
  const Batch& batch = pending.batch;
  if (options_.accumulation > 1) train::set_random_state(device_, pending.random);
  std::shared_ptr<FeatureGather> images;
  const auto begin_gather = [&](const at::Tensor& features) {
    if (options_.accumulation == 1) images = begin_image_gather(features, options_.loss, ranks_);
  };
  const ClipOutput output =
      parts_.model->forward(batch.images, batch.texts, options_.mask_ratio, batch.lengths, begin_gather);
  if (options_.accumulation == 1) {
    return {output.image_features, output.text_features, output.scale, teacher_features(batch), images};
  }
  PairFeatures all = {substituted(output.image_features, &Pending::image, pending.index),
                      substituted(output.text_features, &Pending::text, pending.index),
                      output.scale,
                      {},
                      {}};
  if (!parts_.teacher.is_empty()) all.teacher = substituted(pending.teacher, &Pending::teacher, pending.index);
  return all;
}

train::BatchLoss ClipTask::forward(int64_t index) {
  const auto pending = std::find_if(pending_.begin(), pending_.end(),
                                    [&](const Pending& candidate) { return candidate.index == index; });
  const PairLoss loss = pair_loss(features(*pending), options_.loss, ranks_);
  figures_ = {loss.loss.detach(), loss.image_to_text, loss.text_to_image};
  const at::Tensor& texts = pending->batch.texts;
  train::BatchLoss result;
  result.count = texts.size(0);
  result.loss_sum = loss.loss * static_cast<double>(result.count);
  result.source_tokens = pending->batch.lengths.sum().item<int64_t>();
  result.slots = texts.numel();
  result.padding = result.slots - result.source_tokens;
  return result;
}

void ClipTask::after_update() {
  const at::NoGradGuard no_grad;
  logit_scale_.clamp_(0.0, kLargestLogitScale);
}

train::Validation ClipTask::validate() {
  validation_ = parts_.validator->run(parts_.model, *ranks_);
  return {validation_.loss, validation_.mean_recall()};
}

}  // namespace strobe::clip
