#include "nn/layers.h"

#include <ATen/ops/gelu.h>

#include "nn/dropout.h"
#include "nn/init.h"

namespace strobe::nn {
namespace {

/// The residual connection that ends a sublayer: `input` is what `out` projects, `own` the sublayer's norm, `next` that
/// of the sublayer behind it.
NormedSum close_residual(const LayerConfig& config, bool training, const NormedSum& x, const at::Tensor& input,
                         const Linear& out, const LayerNorm& own, const LayerNorm& next) {
  if (config.norm == NormPlacement::kPre) {
    return residual_norm(x.sum, input, out, next, config.dropout, training);
  }
  const at::Tensor y = residual_norm(x.sum, input, out, own, config.dropout, training).normed;
  return {y, y};
}

LayerNorm layer_norm(const LayerConfig& config) { return LayerNorm(config.d_model, config.norm_eps); }

}  // namespace

FeedForwardImpl::FeedForwardImpl(const LayerConfig& config)
    : hidden_(config.d_model, config.d_ff),
      out_(config.d_ff, config.d_model),
      activation_(config.activation),
      dropout_(config.activation_dropout) {
  register_module("hidden", hidden_);
  register_module("out", out_);
  for (const Linear& linear : {hidden_, out_}) xavier_uniform_(linear->weight);
}

at::Tensor FeedForwardImpl::hidden(const at::Tensor& x) {
  const at::Tensor hidden = hidden_->forward(x);
  return activation_ == Activation::kRelu ? relu_dropout(hidden, dropout_, is_training())
                                          : nn::dropout(at::gelu(hidden), dropout_, is_training());
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

NormedSum EncoderLayerImpl::forward(const NormedSum& x, const Sequences& sequences, const LayerNorm& next) {
  const at::Tensor heads = self_attention_->heads(x.normed, sequences, /*causal=*/false);
  const NormedSum y = close_residual(config_, is_training(), x, heads, self_attention_->out(), self_attention_norm_,
                                     feed_forward_norm_);
  return close_residual(config_, is_training(), y, feed_forward_->hidden(y.normed), feed_forward_->out(),
                        feed_forward_norm_, next);
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

/// `heads` are the self-attention's, cross_heads(x) gives the other's.
template <typename CrossHeads>
NormedSum DecoderLayerImpl::behind_self_attention(const NormedSum& x, const at::Tensor& heads, const LayerNorm& next,
                                                  const CrossHeads& cross_heads) {
  NormedSum y = close_residual(config_, is_training(), x, heads, self_attention_->out(), self_attention_norm_,
                               cross_attention_norm_);
  y = close_residual(config_, is_training(), y, cross_heads(y.normed), cross_attention_->out(), cross_attention_norm_,
                     feed_forward_norm_);
  return close_residual(config_, is_training(), y, feed_forward_->hidden(y.normed), feed_forward_->out(),
                        feed_forward_norm_, next);
}

NormedSum DecoderLayerImpl::forward(const NormedSum& x, const Sequences& sequences, const at::Tensor& memory,
                                    const Sequences& memory_sequences, const LayerNorm& next) {
  return behind_self_attention(
      x, self_attention_->heads(x.normed, sequences, /*causal=*/true), next, [&](const at::Tensor& input) {
        return cross_attention_->heads(input, sequences, cross_attention_->keys_values(memory), memory_sequences);
      });
}

at::Tensor DecoderLayerImpl::memory_keys_values(const at::Tensor& memory) {
  return cross_attention_->keys_values(memory);
}

NormedSum DecoderLayerImpl::step(const NormedSum& x, KeyValueCache& cache, const at::Tensor& memory_keys_values,
                                 const at::Tensor& memory_lengths, const LayerNorm& next) {
  return behind_self_attention(x, self_attention_->step(x.normed, cache), next, [&](const at::Tensor& input) {
    // A sentence's hypotheses share its memory, so they are the query rows of one attention.
    const at::Tensor queries = input.view({memory_keys_values.size(0), -1, input.size(1)});
    return cross_attention_->heads(queries, Sequences(), memory_keys_values, {memory_lengths}).flatten(0, 1);
  });
}

}  // namespace strobe::nn
