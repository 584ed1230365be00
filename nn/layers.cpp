#include "nn/layers.h"

#include "nn/dropout.h"
#include "nn/init.h"

namespace strobe::nn {

torch::nn::LayerNorm layer_norm(const LayerConfig& config) {
  return torch::nn::LayerNorm(torch::nn::LayerNormOptions({config.d_model}).eps(config.norm_eps));
}

FeedForwardImpl::FeedForwardImpl(const LayerConfig& config)
    : hidden_(config.d_model, config.d_ff), out_(config.d_ff, config.d_model), dropout_(config.dropout) {
  register_module("hidden", hidden_);
  register_module("out", out_);
  for (const torch::nn::Linear& linear : {hidden_, out_}) xavier_uniform_(linear->weight);
}

at::Tensor FeedForwardImpl::forward(const at::Tensor& x) {
  return out_->forward(relu_dropout(hidden_->forward(x), dropout_, is_training()));
}

EncoderLayerImpl::EncoderLayerImpl(const LayerConfig& config)
    : self_attention_norm_(layer_norm(config)),
      feed_forward_norm_(layer_norm(config)),
      self_attention_(config.attention()),
      feed_forward_(config),
      dropout_(config.dropout) {
  register_module("self_attention_norm", self_attention_norm_);
  register_module("self_attention", self_attention_);
  register_module("feed_forward_norm", feed_forward_norm_);
  register_module("feed_forward", feed_forward_);
}

at::Tensor EncoderLayerImpl::residual(const at::Tensor& x, const at::Tensor& sublayer) {
  return add_dropout(x, sublayer, dropout_, is_training());
}

at::Tensor EncoderLayerImpl::forward(const at::Tensor& x, const at::Tensor& lengths) {
  const at::Tensor y =
      residual(x, self_attention_->forward(self_attention_norm_->forward(x), lengths, /*causal=*/false));
  return residual(y, feed_forward_->forward(feed_forward_norm_->forward(y)));
}

DecoderLayerImpl::DecoderLayerImpl(const LayerConfig& config)
    : self_attention_norm_(layer_norm(config)),
      cross_attention_norm_(layer_norm(config)),
      feed_forward_norm_(layer_norm(config)),
      self_attention_(config.attention()),
      cross_attention_(config.attention()),
      feed_forward_(config),
      dropout_(config.dropout) {
  register_module("self_attention_norm", self_attention_norm_);
  register_module("self_attention", self_attention_);
  register_module("cross_attention_norm", cross_attention_norm_);
  register_module("cross_attention", cross_attention_);
  register_module("feed_forward_norm", feed_forward_norm_);
  register_module("feed_forward", feed_forward_);
}

at::Tensor DecoderLayerImpl::residual(const at::Tensor& x, const at::Tensor& sublayer) {
  return add_dropout(x, sublayer, dropout_, is_training());
}

at::Tensor DecoderLayerImpl::forward(const at::Tensor& x, const at::Tensor& lengths, const at::Tensor& memory,
                                     const at::Tensor& memory_lengths) {
  at::Tensor y = residual(x, self_attention_->forward(self_attention_norm_->forward(x), lengths, /*causal=*/true));
  y = residual(y, cross_attention_->forward(cross_attention_norm_->forward(y), lengths,
                                            cross_attention_->keys_values(memory), memory_lengths));
  return residual(y, feed_forward_->forward(feed_forward_norm_->forward(y)));
}

at::Tensor DecoderLayerImpl::memory_keys_values(const at::Tensor& memory) {
  return cross_attention_->keys_values(memory);
}

at::Tensor DecoderLayerImpl::step(const at::Tensor& x, KeyValueCache& cache, const at::Tensor& memory_keys_values,
                                  const at::Tensor& memory_lengths) {
  at::Tensor y = residual(x, self_attention_->step(self_attention_norm_->forward(x), cache));
  // A sentence's hypotheses share its memory, so they are the query rows of one attention.
  const int64_t sentences = memory_keys_values.size(0);
  const at::Tensor queries = cross_attention_norm_->forward(y).view({sentences, -1, y.size(1)});
  y = residual(y, cross_attention_->forward(queries, at::Tensor(), memory_keys_values, memory_lengths).flatten(0, 1));
  return residual(y, feed_forward_->forward(feed_forward_norm_->forward(y)));
}

}  // namespace strobe::nn
