// The layers of a Transformer (Vaswani et al. 2017, arXiv 1706.03762), each sublayer in a residual connection:
//   pre-norm   x + dropout(sublayer(norm(x)))   (Xiong et al. 2020, arXiv 2002.04745, figure 1b)
//   post-norm  norm(x + dropout(sublayer(x)))   (Vaswani et al. 2017, section 3.1)
// A sum is taken together with the norm behind it, so a pre-norm layer takes its input normed already, and norms its
// output for what follows; of a post-norm layer, sum and normed are one tensor.
// Whatever the options, matrices begin as nn/init.h says, biases from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), gains at 1.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>

#include <cstdint>
#include <string>

#include "nn/attention.h"
#include "nn/layer_norm.h"
#include "nn/linear.h"
#include "nn/residual_norm.h"

namespace strobe::nn {

enum class NormPlacement { kPre, kPost };
enum class Activation {
  kRelu,
  kGelu
};  // kGelu: x Phi(x) (Hendrycks & Gimpel 2016, arXiv 1606.08415), not the tanh form

struct LayerConfig {
  int64_t d_model = 512;
  int64_t num_heads = 8;
  int64_t d_ff = 2048;
  double dropout = 0.1;             // of every sublayer's output
  double attention_dropout = 0.1;   // of the attention probabilities
  double activation_dropout = 0.1;  // of the feed-forward's hidden units
  NormPlacement norm = NormPlacement::kPre;
  Activation activation = Activation::kRelu;
  double norm_eps = 1e-6;
  std::string attn_type = "imp_flash_attn";

  AttentionConfig attention() const { return {d_model, num_heads, attention_dropout, attn_type}; }
};

/// activation(x W1 + b1) W2 + b2 with dropout on the hidden units (Vaswani et al. 2017, equation 2).
class FeedForwardImpl : public torch::nn::Module {
 public:
  explicit FeedForwardImpl(const LayerConfig& config);

  /// dropout(activation(x W1 + b1)): [..., d_model] -> [..., d_ff].
  at::Tensor hidden(const at::Tensor& x);

  /// W2 and b2, which the residual connection computes (nn/residual_norm.h).
  Linear out() const { return out_; }

 private:
  Linear hidden_;
  Linear out_;
  Activation activation_;
  double dropout_;
};
TORCH_MODULE(FeedForward);

class EncoderLayerImpl : public torch::nn::Module {
 public:
  explicit EncoderLayerImpl(const LayerConfig& config);

  LayerNorm first_norm() const { return self_attention_norm_; }

  /// x [B, N, d_model] or packed [T, d_model] -> like x. `next`, which pre-norm needs: the norm of what follows.
  NormedSum forward(const NormedSum& x, const Sequences& sequences, const LayerNorm& next);

 private:
  LayerConfig config_;
  LayerNorm self_attention_norm_, feed_forward_norm_;
  SelfAttention self_attention_;
  FeedForward feed_forward_;
};
TORCH_MODULE(EncoderLayer);

class DecoderLayerImpl : public torch::nn::Module {
 public:
  explicit DecoderLayerImpl(const LayerConfig& config);

  LayerNorm first_norm() const { return self_attention_norm_; }

  /// x [B, Nt, d_model] and memory [B, Ns, d_model], or both packed, [Tt, d_model] and [Ts, d_model] -> like x. `next`,
  /// which pre-norm needs: the norm of what follows.
  NormedSum forward(const NormedSum& x, const Sequences& sequences, const at::Tensor& memory,
                    const Sequences& memory_sequences, const LayerNorm& next);

  /// What step() needs of the padded memory: [B, Ns, 2H, D].
  at::Tensor memory_keys_values(const at::Tensor& memory);

  /// One token of each hypothesis: x [B * beams, d_model], a sentence's hypotheses next to each other; memory_lengths
  /// [B] int32.
  NormedSum step(const NormedSum& x, KeyValueCache& cache, const at::Tensor& memory_keys_values,
                 const at::Tensor& memory_lengths, const LayerNorm& next);

 private:
  template <typename CrossHeads>
  NormedSum behind_self_attention(const NormedSum& x, const at::Tensor& heads, const LayerNorm& next,
                                  const CrossHeads& cross_heads);

  LayerConfig config_;
  LayerNorm self_attention_norm_, cross_attention_norm_, feed_forward_norm_;
  SelfAttention self_attention_;
  CrossAttention cross_attention_;
  FeedForward feed_forward_;
};
TORCH_MODULE(DecoderLayer);

/// Through all layers of type Layer: x as it comes from the embeddings -> what the last layer gives, normed. `last`
/// stands behind a pre-norm stack, and is empty for a post-norm one. call(index, layer, x, next) runs a layer.
template <typename Layer, typename Call>
at::Tensor through_layers(const torch::nn::ModuleList& layers, const LayerNorm& last, const at::Tensor& x,
                          const Call& call) {
  const auto normed_by = [&](std::size_t index) {
    return index < layers->size() ? (*layers)[index]->as<Layer>()->first_norm() : last;
  };
  NormedSum state = {x, last.is_empty() ? x : normed_by(0)->forward(x)};
  for (std::size_t i = 0; i < layers->size(); ++i) state = call(i, *(*layers)[i]->as<Layer>(), state, normed_by(i + 1));
  return state.normed;
}

}  // namespace strobe::nn
