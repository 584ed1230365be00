// CLIP's modified ResNet (Radford et al. 2021, arXiv 2103.00020, section 2.4): three convolutions as the stem, average
// pooling before every convolution that would stride, attention as the last pooling. On a GPU activations and the
// convolutions' weights lie channels last; checkpoints do not show it.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <string>
#include <vector>

#include "clip/model/batch_norm.h"
#include "clip/model/config.h"
#include "clip/model/options.h"
#include "clip/model/vision_tower.h"
#include "nn/linear.h"

namespace strobe::clip {

/// A convolution without bias, padded so that stride 1 keeps the size.
class ConvolutionImpl : public torch::nn::Module {
 public:
  ConvolutionImpl(int64_t in_channels, int64_t out_channels, int64_t kernel_size, int64_t stride = 1);
  at::Tensor forward(const at::Tensor& x);

  using torch::nn::Module::to;
  void to(torch::Device device, torch::Dtype dtype, bool non_blocking = false) override;
  void to(torch::Device device, bool non_blocking = false) override;

 private:
  void lay_out_for(torch::Device device);

  at::Tensor weight_;  // [out, in, k, k]
  int64_t stride_, padding_;
};
TORCH_MODULE(Convolution);

/// relu(x' + bn3(conv3(pool(relu(bn2(conv2(relu(bn1(conv1(x)))))))))), x' being x or its projection.
class BottleneckImpl : public torch::nn::Module {
 public:
  static constexpr int64_t kExpansion = 4;

  BottleneckImpl(int64_t in_channels, int64_t channels, int64_t stride);

  /// [B, in, H, W] -> [B, 4 channels, H / stride, W / stride].
  at::Tensor forward(const at::Tensor& x);

 private:
  int64_t stride_;
  Convolution conv1_{nullptr}, conv2_{nullptr}, conv3_{nullptr}, downsample_conv_{nullptr};
  BatchNorm bn1_{nullptr}, bn2_{nullptr}, bn3_{nullptr}, downsample_bn_{nullptr};
};
TORCH_MODULE(Bottleneck);

/// Attention of the mean of all places to the places and itself.
class AttentionPoolImpl : public torch::nn::Module {
 public:
  AttentionPoolImpl(const VisionConfig& config, const std::string& attn_type);

  /// [B, C, g, g] -> [B, embed_dim].
  at::Tensor forward(const at::Tensor& x);

 private:
  int64_t heads_;
  std::string attn_type_;
  at::Tensor positional_embedding_;  // [1 + g * g, C], the mean's first
  nn::Linear k_proj_{nullptr}, q_proj_{nullptr}, v_proj_{nullptr}, c_proj_{nullptr};
};
TORCH_MODULE(AttentionPool);

class ModifiedResNetImpl : public VisionTower {
 public:
  ModifiedResNetImpl(const VisionConfig& config, const ClipOptions& options);

  /// images [B, 3, R, R] -> [B, embed_dim]. There are no tokens to leave out: `mask_ratio` is ignored.
  at::Tensor forward(const at::Tensor& images, double mask_ratio) override;

 private:
  std::vector<Convolution> stem_convs_;
  std::vector<BatchNorm> stem_bns_;
  std::vector<Bottleneck> blocks_;
  AttentionPool attnpool_{nullptr};
};
TORCH_MODULE(ModifiedResNet);

}  // namespace strobe::clip
