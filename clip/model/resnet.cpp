#include "clip/model/resnet.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <c10/core/GradMode.h>

#include <array>
#include <cmath>

#include "clip/model/names.h"
#include "nn/attend.h"
#include "ops/images.h"

namespace strobe::clip {
namespace {

/// cuDNN's fastest convolutions take channels last; on the CPU batch norm sums such tensors less exactly.
at::MemoryFormat layout_on(at::Device device) {
  return device.is_cuda() ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

at::Tensor pooled(const at::Tensor& x, int64_t stride) { return stride > 1 ? ops::average_pool(x) : x; }

}  // namespace

ConvolutionImpl::ConvolutionImpl(int64_t in_channels, int64_t out_channels, int64_t kernel_size, int64_t stride)
    : stride_(stride), padding_(kernel_size / 2) {
  const double bound = 1.0 / std::sqrt(static_cast<double>(in_channels * kernel_size * kernel_size));
  weight_ = register_parameter(
      "weight", at::empty({out_channels, in_channels, kernel_size, kernel_size}).uniform_(-bound, bound));
}

void ConvolutionImpl::to(torch::Device device, torch::Dtype dtype, bool non_blocking) {
  torch::nn::Module::to(device, dtype, non_blocking);
  lay_out_for(device);
}

void ConvolutionImpl::to(torch::Device device, bool non_blocking) {
  torch::nn::Module::to(device, non_blocking);
  lay_out_for(device);
}

void ConvolutionImpl::lay_out_for(torch::Device device) {
  weight_.set_data(weight_.detach().contiguous(layout_on(device)));
}

at::Tensor ConvolutionImpl::forward(const at::Tensor& x) {
  return at::conv2d(x, weight_, {}, {stride_, stride_}, {padding_, padding_});
}

BottleneckImpl::BottleneckImpl(int64_t in_channels, int64_t channels, int64_t stride) : stride_(stride) {
  const int64_t out_channels = kExpansion * channels;
  conv1_ = register_module("conv1", Convolution(in_channels, channels, 1));
  bn1_ = register_module("bn1", BatchNorm(channels));
  conv2_ = register_module("conv2", Convolution(channels, channels, 3));
  bn2_ = register_module("bn2", BatchNorm(channels));
  conv3_ = register_module("conv3", Convolution(channels, out_channels, 1));
  bn3_ = register_module("bn3", BatchNorm(out_channels));
  if (stride > 1 || in_channels != out_channels) {
    const auto downsample = name_scope(*this, "downsample");
    downsample_conv_ = downsample->register_module("0", Convolution(in_channels, out_channels, 1));
    downsample_bn_ = downsample->register_module("1", BatchNorm(out_channels));
  }
  // The block begins as its shortcut.
  const c10::NoGradGuard no_grad;
  bn3_->weight().zero_();
}

at::Tensor BottleneckImpl::forward(const at::Tensor& x) {
  at::Tensor out = bn1_->forward(conv1_->forward(x), /*rectifies=*/true);
  out = bn2_->forward(conv2_->forward(out), /*rectifies=*/true);
  const at::Tensor shortcut =
      downsample_conv_.is_empty() ? x : downsample_bn_->forward(downsample_conv_->forward(pooled(x, stride_)));
  return bn3_->forward(conv3_->forward(pooled(out, stride_)), /*rectifies=*/true, shortcut);
}

AttentionPoolImpl::AttentionPoolImpl(const VisionConfig& config, const std::string& attn_type)
    : heads_(config.num_heads()), attn_type_(attn_type) {
  const int64_t width = config.feature_width();
  const double scale = 1.0 / std::sqrt(static_cast<double>(width));
  positional_embedding_ =
      register_parameter("positional_embedding", at::randn({config.num_tokens(), width}).mul_(scale));
  k_proj_ = register_module("k_proj", nn::Linear(width, width));
  q_proj_ = register_module("q_proj", nn::Linear(width, width));
  v_proj_ = register_module("v_proj", nn::Linear(width, width));
  c_proj_ = register_module("c_proj", nn::Linear(width, config.embed_dim));
  const c10::NoGradGuard no_grad;
  for (const nn::Linear& linear : {k_proj_, q_proj_, v_proj_, c_proj_}) linear->weight.normal_(0.0, scale);
}

at::Tensor AttentionPoolImpl::forward(const at::Tensor& x) {
  const at::Tensor places = x.permute({0, 2, 3, 1}).flatten(1, 2);  // [B, g * g, C]; no copy where channels are last
  const at::Tensor tokens =
      at::cat({places.mean(1, /*keepdim=*/true), places}, 1) + positional_embedding_.to(x.scalar_type());
  const at::Tensor attended =
      nn::attend(q_proj_->forward(tokens.narrow(1, 0, 1)), nn::joint_linear(tokens, {k_proj_, v_proj_}), heads_,
                 nn::attention_options(attn_type_, 0.0));
  return c_proj_->forward(attended.select(1, 0));
}

ModifiedResNetImpl::ModifiedResNetImpl(const VisionConfig& config, const ClipOptions& options) {
  const std::array<int64_t, 4> stem = {3, config.width / 2, config.width / 2, config.width};
  for (std::size_t i = 0; i < 3; ++i) {
    const std::string number = std::to_string(i + 1);
    stem_convs_.push_back(
        register_module("conv" + number, Convolution(stem[i], stem[i + 1], 3, /*stride=*/i == 0 ? 2 : 1)));
    stem_bns_.push_back(register_module("bn" + number, BatchNorm(stem[i + 1])));
  }
  int64_t in_channels = config.width;
  for (std::size_t stage = 0; stage < config.layers.size(); ++stage) {
    const auto layer = name_scope(*this, "layer" + std::to_string(stage + 1));
    const int64_t channels = config.width << stage;
    for (int64_t i = 0; i < config.layers[stage]; ++i) {
      const int64_t stride = stage > 0 && i == 0 ? 2 : 1;
      blocks_.push_back(layer->register_module(std::to_string(i), Bottleneck(in_channels, channels, stride)));
      in_channels = BottleneckImpl::kExpansion * channels;
    }
  }
  attnpool_ = register_module("attnpool", AttentionPool(config, options.attn_type));
}

at::Tensor ModifiedResNetImpl::forward(const at::Tensor& images, double /*mask_ratio*/) {
  at::Tensor x = images.contiguous(layout_on(images.device()));
  for (std::size_t i = 0; i < stem_convs_.size(); ++i) {
    x = stem_bns_[i]->forward(stem_convs_[i]->forward(x), /*rectifies=*/true);
  }
  x = pooled(x, 2);
  for (Bottleneck& block : blocks_) x = block->forward(x);
  return attnpool_->forward(x);
}

}  // namespace strobe::clip
