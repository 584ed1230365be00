// CLIP's vision transformer (Dosovitskiy et al. 2020, arXiv 2010.11929; Radford et al. 2021, arXiv 2103.00020, section
// 2.4): a norm before the blocks, pre-norm blocks, x sigmoid(1.702 x) in the feed-forward.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <vector>

#include "clip/model/config.h"
#include "clip/model/options.h"
#include "clip/model/vision_tower.h"
#include "nn/layer_norm.h"
#include "nn/linear.h"
#include "nn/residual_norm.h"

namespace strobe::clip {

/// x + attention(ln_1(x)), then x + mlp(ln_2(x)). The sums are taken together with the norms behind them, so a block
/// takes its input normed by its ln_1 and norms its output for the next.
class ResidualAttentionBlockImpl : public torch::nn::Module {
 public:
  ResidualAttentionBlockImpl(int64_t width, int64_t heads, const std::string& attn_type);

  nn::LayerNorm first_norm() const { return ln_1_; }

  /// x [B, N, width] and ln_1 of it -> [B, N, width] and `next` of it, unless that is empty.
  nn::NormedSum forward(const nn::NormedSum& x, const nn::LayerNorm& next);

  /// Row 0 of forward(x), [B, width], computing nothing for the other rows but their keys and values.
  nn::NormedSum forward_first(const nn::NormedSum& x, const nn::LayerNorm& next);

 private:
  nn::NormedSum mlp(const nn::NormedSum& x, const nn::LayerNorm& next);

  int64_t width_, heads_;
  std::string attn_type_;
  at::Tensor in_proj_weight_;  // [3 width, width]: queries, keys, values
  at::Tensor in_proj_bias_;
  nn::Linear out_proj_{nullptr}, c_fc_{nullptr}, c_proj_{nullptr};
  nn::LayerNorm ln_1_{nullptr}, ln_2_{nullptr};
};
TORCH_MODULE(ResidualAttentionBlock);

class VisionTransformerImpl : public VisionTower {
 public:
  VisionTransformerImpl(const VisionConfig& config, const ClipOptions& options);

  /// images [B, 3, R, R] -> [B, embed_dim]. In training a `mask_ratio` r > 0 leaves out patches as FLIP does (Li et al.
  /// 2022, arXiv 2212.00794, section 3): of the g * g patches of each image int(g * g * (1 - r)) are kept, drawn from
  /// torch's generator of the device; what is left out is not computed at all.
  at::Tensor forward(const at::Tensor& images, double mask_ratio) override;

 private:
  /// images -> [B, g * g, 3 p p], a patch's pixels in the order of patch_weight_'s.
  at::Tensor patches(const at::Tensor& images, at::ScalarType dtype) const;
  /// [B, kept] int64, which patches of each image.
  at::Tensor kept_patches(const at::Tensor& images, double mask_ratio) const;
  at::Tensor embed(const at::Tensor& images, double mask_ratio) const;
  /// Through all blocks, then ln_post: the class token's row, [B, width].
  at::Tensor transform(const at::Tensor& embedded);
  at::Tensor transform_checkpointed(at::Tensor x);

  VisionConfig config_;
  bool grad_checkpointing_;
  at::Tensor class_embedding_;       // [width]
  at::Tensor positional_embedding_;  // [1 + g * g, width], the class token's first
  at::Tensor proj_;                  // [width, embed_dim]
  at::Tensor patch_weight_;          // [width, 3, p, p]
  nn::LayerNorm ln_pre_{nullptr}, ln_post_{nullptr};
  std::vector<ResidualAttentionBlock> blocks_;
};
TORCH_MODULE(VisionTransformer);

}  // namespace strobe::clip
