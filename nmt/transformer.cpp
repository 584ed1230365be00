#include "nmt/transformer.h"

#include <ATen/ops/index_select.h>
#include <torch/nn/modules/linear.h>

#include "nmt/vocabulary.h"
#include "nn/init.h"
#include "nn/linear.h"
#include "ops/cross_entropy.h"

namespace strobe::nmt {
namespace {

template <typename Layer>
torch::nn::ModuleList stack(int64_t count, const nn::LayerConfig& config) {
  torch::nn::ModuleList layers;
  for (int64_t i = 0; i < count; ++i) layers->push_back(Layer(config));
  return layers;
}

const ModelConfig& checked(const ModelConfig& config) {
  validate(config);
  return config;
}

/// The norm after the last layer of a stack.
nn::LayerNorm final_norm(const ModelConfig& config) {
  return config.norm == "pre" ? nn::LayerNorm(config.d_model, config.layer().norm_eps) : nn::LayerNorm(nullptr);
}

nn::TokenEmbedding target_embedding(const ModelConfig& config, const Encoder& encoder) {
  const double dropout = config.embeddings_dropout();
  return config.tie_embeddings == "all" ? nn::TokenEmbedding(encoder->embedding_weight(), dropout)
                                        : nn::TokenEmbedding(config.target_vocabulary, config.d_model, dropout);
}

}  // namespace

EncoderImpl::EncoderImpl(const ModelConfig& config)
    : embedding_(config.source_vocabulary, config.d_model, config.embeddings_dropout()),
      layers_(stack<nn::EncoderLayer>(config.encoder_layers, config.layer())),
      norm_(final_norm(config)) {
  register_module("embedding", embedding_);
  register_module("layers", layers_);
  if (!norm_.is_empty()) register_module("norm", norm_);
}

at::Tensor EncoderImpl::forward(const at::Tensor& source, const nn::Sequences& sequences) {
  return nn::through_layers<nn::EncoderLayerImpl>(
      layers_, norm_, embedding_->forward(source, sequences),
      [&](std::size_t, nn::EncoderLayerImpl& layer, const nn::NormedSum& x, const nn::LayerNorm& next) {
        return layer.forward(x, sequences, next);
      });
}

void DecoderState::reorder(const at::Tensor& rows) {
  for (nn::KeyValueCache& cache : caches_) cache.reorder(rows);
}

void DecoderState::keep_sentences(const at::Tensor& sentences) {
  for (at::Tensor& memory : memory_keys_values_) memory = memory.index_select(0, sentences);
  memory_lengths_ = memory_lengths_.index_select(0, sentences);
}

DecoderImpl::DecoderImpl(const ModelConfig& config, const Encoder& encoder)
    : embedding_(target_embedding(config, encoder)),
      layers_(stack<nn::DecoderLayer>(config.decoder_layers, config.layer())),
      norm_(final_norm(config)) {
  register_module("embedding", embedding_);
  register_module("layers", layers_);
  if (!norm_.is_empty()) register_module("norm", norm_);
}

at::Tensor DecoderImpl::forward(const at::Tensor& target, const nn::Sequences& sequences, const at::Tensor& memory,
                                const nn::Sequences& memory_sequences) {
  return nn::through_layers<nn::DecoderLayerImpl>(
      layers_, norm_, embedding_->forward(target, sequences),
      [&](std::size_t, nn::DecoderLayerImpl& layer, const nn::NormedSum& x, const nn::LayerNorm& next) {
        return layer.forward(x, sequences, memory, memory_sequences, next);
      });
}

DecoderState DecoderImpl::start(const at::Tensor& memory, const at::Tensor& memory_lengths) {
  DecoderState state;
  state.caches_.resize(layers_->size());
  state.memory_lengths_ = memory_lengths;
  for (const auto& layer : *layers_) {
    state.memory_keys_values_.push_back(layer->as<nn::DecoderLayerImpl>()->memory_keys_values(memory));
  }
  return state;
}

at::Tensor DecoderImpl::step(const at::Tensor& ids, DecoderState& state) {
  return nn::through_layers<nn::DecoderLayerImpl>(
      layers_, norm_, embedding_->step(ids, state.position_++),
      [&](std::size_t i, nn::DecoderLayerImpl& layer, const nn::NormedSum& x, const nn::LayerNorm& next) {
        return layer.step(x, state.caches_[i], state.memory_keys_values_[i], state.memory_lengths_, next);
      });
}

GeneratorImpl::GeneratorImpl(const ModelConfig& config, const Decoder& decoder) {
  const torch::nn::Linear own(config.d_model, config.target_vocabulary);
  bias_ = register_parameter("bias", own->bias);
  if (config.tie_embeddings != "none") {
    weight_ = decoder->embedding_weight();
  } else {
    weight_ = register_parameter("weight", own->weight);
    nn::xavier_uniform_(weight_);
  }
}

at::Tensor GeneratorImpl::forward(const at::Tensor& x) { return nn::linear(x, weight_, bias_); }

TransformerImpl::TransformerImpl(const ModelConfig& config)
    : config_(checked(config)), encoder_(config), decoder_(config, encoder_), generator_(config, decoder_) {
  register_module("encoder", encoder_);
  register_module("decoder", decoder_);
  register_module("generator", generator_);
}

bool TransformerImpl::packs_tokens() const { return config_.attn_type != "dotscale"; }

at::Tensor TransformerImpl::forward(const Batch& batch) {
  const RealTokens &source = batch.source_real, &target = batch.target_real;
  if (packs_tokens()) {
    const at::Tensor memory = encoder_->forward(source.of(batch.source), source.sequences);
    const at::Tensor targets = target.of(batch.target_in);
    return generator_->forward(decoder_->forward(targets, target.sequences, memory, source.sequences));
  }
  const at::Tensor memory = encoder_->forward(batch.source, {batch.source_lengths});
  const at::Tensor x = decoder_->forward(batch.target_in, {batch.target_lengths}, memory, {batch.source_lengths});
  return generator_->forward(target.of(x));
}

at::Tensor TransformerImpl::loss(const Batch& batch, double label_smoothing) {
  return ops::cross_entropy(forward(batch), batch.target_real.of(batch.target_out), kPadId, label_smoothing);
}

DecoderState TransformerImpl::start(const at::Tensor& source, const at::Tensor& source_lengths) {
  return decoder_->start(encoder_->forward(source, {source_lengths}), source_lengths);
}

at::Tensor TransformerImpl::step(const at::Tensor& ids, DecoderState& state) {
  return generator_->forward(decoder_->step(ids, state));
}

}  // namespace strobe::nmt
