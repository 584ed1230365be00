// The layers of a pre-norm Transformer: x + dropout(sublayer(norm(x))) (Xiong et al. 2020, arXiv 2002.04745, figure
// 1b).
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>

#include <cstdint>
#include <string>

#include "nn/attention.h"

namespace strobe::nn {

struct LayerConfig {
  int64_t d_model = 512;
  int64_t num_heads = 8;
  int64_t d_ff = 2048;
  double dropout = 0.1;  // of attention probabilities, of the feed-forward's hidden units, of every sublayer's output
  double norm_eps = 1e-6;
  std::string attn_type = "imp_flash_attn";

  AttentionConfig attention() const { return {d_model, num_heads, dropout, attn_type}; }
};

/// LayerNorm over the last dimension with gain and bias.
torch::nn::LayerNorm layer_norm(const LayerConfig& config);

/// max(0, x W1 + b1) W2 + b2 with dropout on the hidden units (Vaswani et al. 2017, equation 2).
class FeedForwardImpl : public torch::nn::Module {
 public:
  explicit FeedForwardImpl(const LayerConfig& config);
  /// [..., d_model] -> [..., d_model].
  at::Tensor forward(const at::Tensor& x);

 private:
  torch::nn::Linear hidden_;
  torch::nn::Linear out_;
  double dropout_;
};
TORCH_MODULE(FeedForward);

class EncoderLayerImpl : public torch::nn::Module {
 public:
  explicit EncoderLayerImpl(const LayerConfig& config);
  /// x [B, N, d_model], lengths [B] int32 -> [B, N, d_model].
  at::Tensor forward(const at::Tensor& x, const at::Tensor& lengths);

 private:
  at::Tensor residual(const at::Tensor& x, const at::Tensor& sublayer);

  torch::nn::LayerNorm self_attention_norm_, feed_forward_norm_;
  SelfAttention self_attention_;
  FeedForward feed_forward_;
  double dropout_;
};
TORCH_MODULE(EncoderLayer);

class DecoderLayerImpl : public torch::nn::Module {
 public:
  explicit DecoderLayerImpl(const LayerConfig& config);

  /// x [B, Nt, d_model] with lengths [B] int32, memory [B, Ns, d_model] with memory_lengths [B] int32.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& lengths, const at::Tensor& memory,
                     const at::Tensor& memory_lengths);

  /// What step() needs of the memory: [B, Ns, 2H, D].
  at::Tensor memory_keys_values(const at::Tensor& memory);

  /// One token of each hypothesis: x [B * beams, d_model], a sentence's hypotheses next to each other.
  at::Tensor step(const at::Tensor& x, KeyValueCache& cache, const at::Tensor& memory_keys_values,
                  const at::Tensor& memory_lengths);

 private:
  at::Tensor residual(const at::Tensor& x, const at::Tensor& sublayer);

  torch::nn::LayerNorm self_attention_norm_, cross_attention_norm_, feed_forward_norm_;
  SelfAttention self_attention_;
  CrossAttention cross_attention_;
  FeedForward feed_forward_;
  double dropout_;
};
TORCH_MODULE(DecoderLayer);

}  // namespace strobe::nn
