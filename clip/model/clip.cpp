#include "clip/model/clip.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/norm.h>
#include <ATen/ops/scalar_tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "clip/model/resnet.h"
#include "clip/model/text_batch.h"
#include "clip/model/vit.h"
#include "strobe/types.h"

namespace strobe::clip {
namespace {

constexpr double kInitialTemperature = 0.07;

std::shared_ptr<VisionTower> vision_tower(const VisionConfig& config, const ClipOptions& options) {
  if (config.is_vit()) return VisionTransformer(config, options).ptr();
  return ModifiedResNet(config, options).ptr();
}

at::Tensor normalized(const at::Tensor& features) {
  return features / at::norm(features, 2, /*dim=*/{-1}, /*keepdim=*/true);
}

void freeze(const torch::nn::Module& module) {
  for (const at::Tensor& parameter : module.parameters()) parameter.set_requires_grad(false);
}

}  // namespace

ClipImpl::ClipImpl(const VisionConfig& vision, const TextConfig& text, const ClipOptions& options)
    : vision_config_(vision), text_config_(text), options_(options) {
  const double text_scale = 1.0 / std::sqrt(static_cast<double>(text.hidden_size));
  text_projection_ =
      register_parameter("text_projection", at::empty({text.hidden_size, vision.embed_dim}).normal_(0.0, text_scale));
  logit_scale_ = register_parameter("logit_scale", at::scalar_tensor(std::log(1.0 / kInitialTemperature)));
  visual_ = register_module("visual", vision_tower(vision, options));
  bert_ = register_module("bert", Bert(text, options));
}

at::Tensor ClipImpl::encode_image(const at::Tensor& images, double mask_ratio) {
  const int64_t side = vision_config_.image_resolution;
  if (images.dim() != 4 || images.size(1) != 3 || images.size(2) != side || images.size(3) != side) {
    throw Error(fmt::format("image encoder: images: expected [B, 3, {}, {}], found [{}]", side, side,
                            fmt::join(images.sizes(), ", ")));
  }
  return visual_->forward(images.to(text_projection_.scalar_type()), mask_ratio);
}

at::Tensor ClipImpl::encode_text(const at::Tensor& ids, const at::Tensor& lengths) {
  if (ids.dim() != 2 || ids.scalar_type() != at::kLong) {
    throw Error(fmt::format("text encoder: ids: expected [B, L] of int64, found [{}] of {}",
                            fmt::join(ids.sizes(), ", "), toString(ids.scalar_type())));
  }
  const bool flash = options_.attn_type != "dotscale";
  const bool known = lengths.defined() || ids.is_cpu();
  const TextBatch texts = flash && known ? packed_texts(ids, lengths.defined() ? lengths : count_tokens(ids))
                                         : padded_texts(ids, lengths, /*skip_padded_queries=*/flash);
  return at::matmul(bert_->forward(texts), text_projection_);
}

ClipOutput ClipImpl::forward(const at::Tensor& images, const at::Tensor& ids, double mask_ratio,
                             const at::Tensor& lengths, const std::function<void(const at::Tensor&)>& images_done) {
  const at::Tensor image_features = normalized(encode_image(images, mask_ratio));
  if (images_done) images_done(image_features);
  return {image_features, normalized(encode_text(ids, lengths)), logit_scale_.exp()};
}

void ClipImpl::freeze_vision() {
  freeze(*visual_);
  for (const auto& module : visual_->modules()) {
    if (auto* norm = module->as<BatchNormImpl>()) norm->freeze();
  }
}

void ClipImpl::freeze_text() {
  freeze(*bert_);
  text_projection_.set_requires_grad(false);
  text_frozen_ = true;
  bert_->eval();
}

void ClipImpl::synchronise_batch_norms(const GatherRows& gather) {
  for (const auto& module : visual_->modules()) {
    if (auto* norm = module->as<BatchNormImpl>()) norm->synchronise(gather);
  }
}

void ClipImpl::train(bool on) {
  torch::nn::Module::train(on);
  if (text_frozen_) bert_->eval();
}

}  // namespace strobe::clip
