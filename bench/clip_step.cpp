#include "bench/clip_step.h"

#include <torch/csrc/autograd/grad_mode.h>

#include <utility>

#include "clip/image/transform.h"
#include "clip/training/loss.h"
#include "train/device.h"

namespace strobe::bench {
namespace {

/// As the recipes for fine-tuning have it.
constexpr double kWeightDecay = 0.001;

/// The same batch again and again.
class OneBatch : public clip::BatchSource {
 public:
  OneBatch(const ClipBatch& batch, at::MemoryFormat format, int64_t processes)
      : batch_(batch), format_(format), processes_(processes) {}

  int64_t begin_epoch(int64_t) override { return 1; }
  clip::Batch batch(int64_t) override {
    return {clip::normalize_images(batch_.images, format_), batch_.ids, batch_.lengths, {}};
  }
  int64_t samples_per_epoch() const override { return batch_.ids.size(0) * processes_; }
  int64_t skipped() const override { return 0; }

 private:
  const ClipBatch& batch_;
  at::MemoryFormat format_;
  int64_t processes_;
};

at::MemoryFormat format_for(const clip::VisionConfig& vision) {
  return vision.is_vit() ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast;
}

clip::ClipTask::Parts parts(const clip::Clip& model, const ClipBatch& batch, int64_t processes) {
  return {.model = model,
          .training = std::make_unique<OneBatch>(batch, format_for(model->vision_config()), processes),
          .validator = std::nullopt};
}

train::TrainerOptions trainer_options(const ClipSettings& settings, at::Device device,
                                      std::shared_ptr<train::Communicator> ranks) {
  train::TrainerOptions options;
  options.device = device;
  options.precision = settings.precision;
  options.optimizer = {.kind = train::OptimizerOptions::Kind::kAdamW,
                       .beta1 = 0.9,
                       .beta2 = 0.98,
                       .eps = 1e-6,
                       .weight_decay = kWeightDecay};
  options.ranks = std::move(ranks);
  return options;
}

}  // namespace

clip::Clip make_clip(const ClipSize& size, const std::string& attn_type, uint64_t seed, at::Device device) {
  train::seed_generators(at::kCPU, seed);
  clip::Clip model(clip::vision_config(size.vision), clip::text_config(size.text),
                   clip::ClipOptions{.attn_type = attn_type});
  model->to(device);
  return model;
}

ClipStep::ClipStep(const clip::Clip& model, const ClipBatch& batch, const ClipSettings& settings, at::Device device,
                   std::shared_ptr<train::Communicator> ranks)
    : options_(trainer_options(settings, device, std::move(ranks))),
      model_(model),
      batch_(batch),
      task_(parts(model_, batch, options_.ranks->size()), clip::TaskOptions{}, device, options_.ranks),
      updater_(task_, options_),
      lr_(settings.lr) {
  train::tune_convolutions();
  task_.begin_epoch(1);
}

void ClipStep::run() {
  model_->train();
  const int64_t batches = options_.ranks->size();
  updater_.apply(lr_, updater_.accumulate(0, batches), totals_);
}

double ClipStep::loss() {
  const at::NoGradGuard no_grad;
  const train::AutocastGuard autocast(options_.device.type(), options_.precision);
  model_->eval();
  const at::Tensor images = clip::normalize_images(batch_.images, format_for(model_->vision_config()));
  const clip::ClipOutput output = model_->forward(images, batch_.ids, /*mask_ratio=*/0.0, batch_.lengths);
  return clip::pair_loss({output.image_features, output.text_features, output.scale, {}, {}}, {}, options_.ranks)
      .loss.item<double>();
}

}  // namespace strobe::bench
