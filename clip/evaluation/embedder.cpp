#include "clip/evaluation/embedder.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/linalg_vector_norm.h>

#include "clip/checkpoint/checkpoint.h"
#include "clip/checkpoint/load.h"
#include "clip/checkpoint/towers.h"
#include "clip/image/transform.h"

namespace strobe::clip {
namespace {

at::Tensor of_length_one(const at::Tensor& features) {
  const at::Tensor values = features.to(at::kFloat);
  return values / at::linalg_vector_norm(values, 2, {-1}, /*keepdim=*/true);
}

}  // namespace

Clip load_clip(const std::filesystem::path& checkpoint, const std::string& vision_model, const std::string& text_model,
               const ClipOptions& options) {
  const ClipCheckpoint file = read_clip_weights(checkpoint);
  Towers towers = infer_towers(file.state);
  if (!vision_model.empty()) towers.vision = vision_config(vision_model);
  if (!text_model.empty()) towers.text = text_config(text_model);
  check_towers(file.state, towers.vision, towers.text);
  Clip model(towers.vision, towers.text, options);
  load_clip_weights(*model, file.state);
  model->eval();
  return model;
}

Embedder::Embedder(Clip model, at::Device device, train::Precision precision)
    : model_(std::move(model)), device_(device), precision_(precision) {
  model_->to(device_);
  model_->eval();
}

at::Tensor Embedder::texts(const at::Tensor& ids) {
  const at::NoGradGuard no_gradients;
  const train::AutocastGuard autocast(device_.type(), precision_);
  return of_length_one(model_->encode_text(ids.to(device_), ids.ne(0).sum(1)));
}

at::Tensor Embedder::images(const at::Tensor& pixels) {
  const at::NoGradGuard no_gradients;
  const train::AutocastGuard autocast(device_.type(), precision_);
  return of_length_one(model_->encode_image(normalize_images(pixels.to(device_))));
}

}  // namespace strobe::clip
