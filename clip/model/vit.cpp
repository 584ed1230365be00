#include "clip/model/vit.h"

#include <ATen/ops/argsort.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "clip/model/names.h"
#include "nn/activation.h"
#include "nn/attend.h"
#include "nn/checkpointing.h"
#include "nn/init.h"
#include "strobe/types.h"

namespace strobe::clip {
namespace {

constexpr double kNormEps = 1e-5;

const VisionConfig& checked(const VisionConfig& config) {
  if (config.image_resolution % config.patch_size != 0 || config.width % config.head_width != 0 ||
      config.layers.size() != 1 || config.layers[0] < 1) {
    throw Error(
        fmt::format("{}: expected patches that divide the image, heads that divide the width and layers, found "
                    "patch_size {} of {}, head_width {} of {}, layers {}",
                    config.name, config.patch_size, config.image_resolution, config.head_width, config.width,
                    fmt::join(config.layers, ", ")));
  }
  return config;
}

}  // namespace

ResidualAttentionBlockImpl::ResidualAttentionBlockImpl(int64_t width, int64_t heads, const std::string& attn_type)
    : width_(width), heads_(heads), attn_type_(attn_type) {
  const auto attn = name_scope(*this, "attn");
  in_proj_weight_ = attn->register_parameter("in_proj_weight", at::empty({3 * width, width}));
  in_proj_bias_ = attn->register_parameter("in_proj_bias", at::zeros({3 * width}));
  out_proj_ = attn->register_module("out_proj", nn::Linear(width, width));
  ln_1_ = register_module("ln_1", nn::LayerNorm(width, kNormEps));
  const auto mlp = name_scope(*this, "mlp");
  c_fc_ = mlp->register_module("c_fc", nn::Linear(width, 4 * width));
  c_proj_ = mlp->register_module("c_proj", nn::Linear(4 * width, width));
  ln_2_ = register_module("ln_2", nn::LayerNorm(width, kNormEps));
  nn::xavier_uniform_(in_proj_weight_);
  const c10::NoGradGuard no_grad;
  out_proj_->bias.zero_();
}

nn::NormedSum ResidualAttentionBlockImpl::mlp(const nn::NormedSum& x, const nn::LayerNorm& next) {
  return nn::residual_norm(x.sum, nn::gelu_linear(x.normed, c_fc_, nn::Gelu::kQuick), c_proj_, next);
}

nn::NormedSum ResidualAttentionBlockImpl::forward(const nn::NormedSum& x, const nn::LayerNorm& next) {
  const at::Tensor qkv = nn::linear(x.normed, in_proj_weight_, in_proj_bias_);
  const at::Tensor attended = nn::attend(qkv, heads_, nn::attention_options(attn_type_, 0.0));
  return mlp(nn::residual_norm(x.sum, attended, out_proj_, ln_2_), next);
}

nn::NormedSum ResidualAttentionBlockImpl::forward_first(const nn::NormedSum& x, const nn::LayerNorm& next) {
  const std::vector<int64_t> parts = {width_, 2 * width_};  // queries; keys and values
  const auto weights = nn::for_products(in_proj_weight_).split_with_sizes(parts);
  const auto biases = nn::for_products(in_proj_bias_).split_with_sizes(parts);
  const at::Tensor q = nn::linear(x.normed.narrow(1, 0, 1), weights[0], biases[0]);
  const at::Tensor kv = nn::linear(x.normed, weights[1], biases[1]);
  const at::Tensor attended = nn::attend(q, kv, heads_, nn::attention_options(attn_type_, 0.0));
  return mlp(nn::residual_norm(x.sum.select(1, 0), attended.select(1, 0), out_proj_, ln_2_), next);
}

VisionTransformerImpl::VisionTransformerImpl(const VisionConfig& config, const ClipOptions& options)
    : config_(checked(config)), grad_checkpointing_(options.grad_checkpointing) {
  const int64_t width = config.width, patch = config.patch_size;
  const double scale = 1.0 / std::sqrt(static_cast<double>(width));
  class_embedding_ = register_parameter("class_embedding", at::randn({width}).mul_(scale));
  positional_embedding_ =
      register_parameter("positional_embedding", at::randn({config.num_tokens(), width}).mul_(scale));
  proj_ = register_parameter("proj", at::randn({width, config.embed_dim}).mul_(scale));
  const double bound = 1.0 / std::sqrt(static_cast<double>(3 * patch * patch));
  patch_weight_ = name_scope(*this, "conv1")
                      ->register_parameter("weight", at::empty({width, 3, patch, patch}).uniform_(-bound, bound));
  ln_pre_ = register_module("ln_pre", nn::LayerNorm(width, kNormEps));
  const auto resblocks = name_scope(*name_scope(*this, "transformer"), "resblocks");
  for (int64_t i = 0; i < config.layers[0]; ++i) {
    blocks_.push_back(resblocks->register_module(std::to_string(i),
                                                 ResidualAttentionBlock(width, config.num_heads(), options.attn_type)));
  }
  ln_post_ = register_module("ln_post", nn::LayerNorm(width, kNormEps));
}

at::Tensor VisionTransformerImpl::patches(const at::Tensor& images, at::ScalarType dtype) const {
  const int64_t grid = config_.grid(), patch = config_.patch_size;
  return images.reshape({images.size(0), 3, grid, patch, grid, patch})
      .permute({0, 2, 4, 1, 3, 5})
      .to(dtype, /*non_blocking=*/false, /*copy=*/false, at::MemoryFormat::Contiguous)
      .contiguous()  // there is nothing to copy unless the dtype was right already
      .view({images.size(0), grid * grid, 3 * patch * patch});
}

at::Tensor VisionTransformerImpl::kept_patches(const at::Tensor& images, double mask_ratio) const {
  const int64_t count = config_.num_tokens() - 1;
  const auto kept = static_cast<int64_t>(static_cast<double>(count) * (1.0 - mask_ratio));
  return at::argsort(at::rand({images.size(0), count}, at::device(images.device()).dtype(at::kFloat)), int64_t{1})
      .narrow(1, 0, kept);
}

at::Tensor VisionTransformerImpl::embed(const at::Tensor& images, double mask_ratio) const {
  const at::Tensor weight = nn::for_products(patch_weight_).flatten(1);
  const at::ScalarType dtype = weight.scalar_type();
  at::Tensor x = patches(images, dtype);
  at::Tensor positions = positional_embedding_.narrow(0, 1, config_.num_tokens() - 1).to(dtype);
  if (is_training() && mask_ratio > 0.0) {
    const at::Tensor kept = kept_patches(images, mask_ratio);
    x = x.gather(1, kept.unsqueeze(-1).expand({-1, -1, x.size(-1)}));
    positions = at::embedding(positions, kept);
  }
  const at::Tensor first = class_embedding_.to(dtype) + positional_embedding_.select(0, 0).to(dtype);
  return at::cat({first.expand({images.size(0), 1, -1}), at::linear(x, weight) + positions}, 1);
}

at::Tensor VisionTransformerImpl::transform(const at::Tensor& embedded) {
  if (grad_checkpointing_) return transform_checkpointed(embedded);
  nn::NormedSum x = {embedded, blocks_.front()->first_norm()->forward(embedded)};
  for (std::size_t i = 0; i + 1 < blocks_.size(); ++i) x = blocks_[i]->forward(x, blocks_[i + 1]->first_norm());
  return blocks_.back()->forward_first(x, ln_post_).normed;
}

/// Each block norms its own input and gives the sum alone, so that one tensor a block is kept.
at::Tensor VisionTransformerImpl::transform_checkpointed(at::Tensor x) {
  const nn::LayerNorm none(nullptr);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const bool is_last = i + 1 == blocks_.size();
    const auto compute = [block = blocks_[i].ptr(), is_last, none](const at::Tensor& input) {
      const nn::NormedSum normed = {input, block->first_norm()->forward(input)};
      return is_last ? block->forward_first(normed, none).sum : block->forward(normed, none).sum;
    };
    x = nn::checkpoint(compute, x, blocks_[i]->parameters());
  }
  return ln_post_->forward(x);
}

at::Tensor VisionTransformerImpl::forward(const at::Tensor& images, double mask_ratio) {
  if (mask_ratio < 0.0 || mask_ratio >= 1.0) {
    throw Error(fmt::format("image encoder: mask_ratio: expected at least 0 and less than 1, found {}", mask_ratio));
  }
  return at::matmul(transform(ln_pre_->forward(embed(images, mask_ratio))), proj_);
}

}  // namespace strobe::clip
