// CLIP (Radford et al. 2021, arXiv 2103.00020) with Chinese-CLIP's towers (Yang et al. 2022, arXiv 2211.01335).
//
// named_parameters() and named_buffers() have the keys of the original's state dict, without "module.", in the order of
// the original's named_parameters(), by which an optimizer's checkpoint counts.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <functional>
#include <memory>

#include "clip/model/batch_norm.h"
#include "clip/model/bert.h"
#include "clip/model/config.h"
#include "clip/model/options.h"
#include "clip/model/vision_tower.h"

namespace strobe::clip {

struct ClipOutput {
  at::Tensor image_features;  // [B, embed_dim], of length 1
  at::Tensor text_features;   // [B, embed_dim], of length 1
  at::Tensor scale;           // 0-d: exp(logit_scale)
};

/// Weights begin as the original's do without a checkpoint. Runs in fp32, in fp64 (dotscale alone) and under autocast.
class ClipImpl : public torch::nn::Module {
 public:
  ClipImpl(const VisionConfig& vision, const TextConfig& text, const ClipOptions& options);

  /// images [B, 3, R, R] -> [B, embed_dim], not normalised. `mask_ratio` as in VisionTransformer: in training only.
  at::Tensor encode_image(const at::Tensor& images, double mask_ratio = 0.0);

  /// ids [B, L] int64, right-padded with 0 -> [B, embed_dim], not normalised. lengths [B] int64 on the CPU: the tokens
  /// before the padding, [CLS] and [SEP] included; undefined: counted from the ids. With the flash types and known
  /// lengths padding is not computed at all; they are known if given or if the ids are on the CPU.
  at::Tensor encode_text(const at::Tensor& ids, const at::Tensor& lengths = {});

  /// `images_done` is called with the images' features before those of the texts are computed.
  ClipOutput forward(const at::Tensor& images, const at::Tensor& ids, double mask_ratio = 0.0,
                     const at::Tensor& lengths = {}, const std::function<void(const at::Tensor&)>& images_done = {});

  /// No gradient for a tower and its projection. A ResNet's batch norms then use and keep their running statistics, a
  /// text tower drops nothing out, in training too.
  void freeze_vision();
  void freeze_text();

  /// The statistics of all batch norms are taken over all processes.
  void synchronise_batch_norms(const GatherRows& gather);

  void train(bool on = true) override;

  const VisionConfig& vision_config() const { return vision_config_; }
  const TextConfig& text_config() const { return text_config_; }
  const ClipOptions& options() const { return options_; }

 private:
  VisionConfig vision_config_;
  TextConfig text_config_;
  ClipOptions options_;
  bool text_frozen_ = false;
  at::Tensor text_projection_;  // [hidden, embed_dim]
  at::Tensor logit_scale_;      // 0-d
  std::shared_ptr<VisionTower> visual_;
  Bert bert_{nullptr};
};
TORCH_MODULE(Clip);

}  // namespace strobe::clip
