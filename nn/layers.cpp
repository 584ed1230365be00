#include "nn/layers.h"

#include <ATen/ops/gelu.h>

#include "nn/dropout.h"
#include "nn/init.h"

namespace strobe::nn {
namespace {

/// The residual connection around `sublayer`, a callable from tensor to tensor, with the norm where it belongs.
template <typename Sublayer>
at::Tensor residual(const LayerConfig& config, bool training, const at::Tensor& x, torch::nn::LayerNorm& norm,
                    const Sublayer& sublayer) {
  if (config.norm == NormPlacement::kPre) {
    return add_dropout(x, sublayer(norm->forward(x)), config.dropout, training);
  }
  return norm->forward(add_dropout(x, sublayer(x), config.dropout, training));
}

}  // namespace

torch::nn::LayerNorm layer_norm(const LayerConfig& config) {
  return torch::nn::LayerNorm(torch::nn::LayerNormOptions({config.d_model}).eps(config.norm_eps));
}

FeedForwardImpl::FeedForwardImpl(const LayerConfig& config)
    : hidden_(config.d_model, config.d_ff),
      out_(config.d_ff, config.d_model),
      activation_(config.activation),
      dropout_(config.activation_dropout) {
  register_module("hidden", hidden_);
  register_module("out", out_);
  for (const Linear& linear : {hidden_, out_}) xavier_uniform_(linear->weight);
}

at::Tensor FeedForwardImpl::forward(const at::Tensor& x) {
  const at::Tensor hidden = hidden_->forward(x);
  return out_->forward(activation_ == Activation::kRelu ? relu_dropout(hidden, dropout_, is_training())
                                                        : nn::dropout(at::gelu(hidden), dropout_, is_training()));
}

EncoderLayerImpl::EncoderLayerImpl(const LayerConfig& config)
    : config_(config),
      self_attention_norm_(layer_norm(config)),
      feed_forward_norm_(layer_norm(config)),
      self_attention_(config.attention()),
      feed_forward_(config) {
  register_module("self_attention_norm", self_attention_norm_);
  register_module("self_attention", self_attention_);
  register_module("feed_forward_norm", feed_forward_norm_);
  register_module("feed_forward", feed_forward_);
}

at::Tensor EncoderLayerImpl::forward(const at::Tensor& x, const Sequences& sequences) {
  const at::Tensor y = residual(config_, is_training(), x, self_attention_norm_, [&](const at::Tensor& input) {
    return self_attention_->forward(input, sequences, /*causal=*/false);
  });
  return residual(config_, is_training(), y, feed_forward_norm_,
                  [&](const at::Tensor& input) { return feed_forward_->forward(input); });
}

DecoderLayerImpl::DecoderLayerImpl(const LayerConfig& config)
    : config_(config),
      self_attention_norm_(layer_norm(config)),
      cross_attention_norm_(layer_norm(config)),
      feed_forward_norm_(layer_norm(config)),
      self_attention_(config.attention()),
      cross_attention_(config.attention()),
      feed_forward_(config) {
  register_module("self_attention_norm", self_attention_norm_);
  register_module("self_attention", self_attention_);
  register_module("cross_attention_norm", cross_attention_norm_);
  register_module("cross_attention", cross_attention_);
  register_module("feed_forward_norm", feed_forward_norm_);
  register_module("feed_forward", feed_forward_);
}

at::Tensor DecoderLayerImpl::forward(const at::Tensor& x, const Sequences& sequences, const at::Tensor& memory,
                                     const Sequences& memory_sequences) {
  at::Tensor y = residual(config_, is_training(), x, self_attention_norm_, [&](const at::Tensor& input) {
    return self_attention_->forward(input, sequences, /*causal=*/true);
  });
  y = residual(config_, is_training(), y, cross_attention_norm_, [&](const at::Tensor& input) {
    return cross_attention_->forward(input, sequences, cross_attention_->keys_values(memory), memory_sequences);
  });
  return residual(config_, is_training(), y, feed_forward_norm_,
                  [&](const at::Tensor& input) { return feed_forward_->forward(input); });
}

at::Tensor DecoderLayerImpl::memory_keys_values(const at::Tensor& memory) {
  return cross_attention_->keys_values(memory);
}

at::Tensor DecoderLayerImpl::step(const at::Tensor& x, KeyValueCache& cache, const at::Tensor& memory_keys_values,
                                  const at::Tensor& memory_lengths) {
  at::Tensor y = residual(config_, is_training(), x, self_attention_norm_,
                          [&](const at::Tensor& input) { return self_attention_->step(input, cache); });
  y = residual(config_, is_training(), y, cross_attention_norm_, [&](const at::Tensor& input) {
    // A sentence's hypotheses share its memory, so they are the query rows of one attention.
    const at::Tensor queries = input.view({memory_keys_values.size(0), -1, input.size(1)});
    return cross_attention_->forward(queries, Sequences(), memory_keys_values, {memory_lengths}).flatten(0, 1);
  });
  return residual(config_, is_training(), y, feed_forward_norm_,
                  [&](const at::Tensor& input) { return feed_forward_->forward(input); });
}

}  // namespace strobe::nn
