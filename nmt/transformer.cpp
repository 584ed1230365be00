#include "nmt/transformer.h"

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/nonzero_static.h>

#include "nmt/vocabulary.h"
#include "nn/init.h"

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

}  // namespace

EncoderImpl::EncoderImpl(const ModelConfig& config)
    : embedding_(config.source_vocabulary, config.d_model, config.dropout),
      layers_(stack<nn::EncoderLayer>(config.encoder_layers, config.layer())),
      norm_(nn::layer_norm(config.layer())) {
  register_module("embedding", embedding_);
  register_module("layers", layers_);
  register_module("norm", norm_);
}

at::Tensor EncoderImpl::forward(const at::Tensor& source, const at::Tensor& lengths) {
  at::Tensor x = embedding_->forward(source);
  for (const auto& layer : *layers_) x = layer->as<nn::EncoderLayerImpl>()->forward(x, lengths);
  return norm_->forward(x);
}

void DecoderState::reorder(const at::Tensor& rows) {
  for (nn::KeyValueCache& cache : caches_) cache.reorder(rows);
}

void DecoderState::keep_sentences(const at::Tensor& sentences) {
  for (at::Tensor& memory : memory_keys_values_) memory = memory.index_select(0, sentences);
  memory_lengths_ = memory_lengths_.index_select(0, sentences);
}

DecoderImpl::DecoderImpl(const ModelConfig& config)
    : embedding_(config.target_vocabulary, config.d_model, config.dropout),
      layers_(stack<nn::DecoderLayer>(config.decoder_layers, config.layer())),
      norm_(nn::layer_norm(config.layer())) {
  register_module("embedding", embedding_);
  register_module("layers", layers_);
  register_module("norm", norm_);
}

at::Tensor DecoderImpl::forward(const at::Tensor& target, const at::Tensor& lengths, const at::Tensor& memory,
                                const at::Tensor& memory_lengths) {
  at::Tensor x = embedding_->forward(target);
  for (const auto& layer : *layers_) {
    x = layer->as<nn::DecoderLayerImpl>()->forward(x, lengths, memory, memory_lengths);
  }
  return norm_->forward(x);
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
  at::Tensor x = embedding_->step(ids, state.position_++);
  for (std::size_t i = 0; i < layers_->size(); ++i) {
    x = layers_[i]->as<nn::DecoderLayerImpl>()->step(x, state.caches_[i], state.memory_keys_values_[i],
                                                     state.memory_lengths_);
  }
  return norm_->forward(x);
}

TransformerImpl::TransformerImpl(const ModelConfig& config)
    : config_(checked(config)),
      encoder_(config),
      decoder_(config),
      generator_(config.d_model, config.target_vocabulary) {
  register_module("encoder", encoder_);
  register_module("decoder", decoder_);
  register_module("generator", generator_);
  nn::xavier_uniform_(generator_->weight);
}

at::Tensor TransformerImpl::hidden(const Batch& batch) {
  const at::Tensor memory = encoder_->forward(batch.source, batch.source_lengths);
  return decoder_->forward(batch.target_in, batch.target_lengths, memory, batch.source_lengths);
}

at::Tensor TransformerImpl::forward(const Batch& batch) { return generator_->forward(hidden(batch)); }

at::Tensor TransformerImpl::loss(const Batch& batch, double label_smoothing) {
  at::Tensor rows = hidden(batch).flatten(0, 1);
  at::Tensor targets = batch.target_out.flatten();
  if (batch.target_tokens < targets.size(0)) {
    // The count is known, so that a GPU need not be asked for it.
    const at::Tensor real = at::nonzero_static(targets.ne(kPadId), batch.target_tokens).squeeze(1);
    rows = rows.index_select(0, real);
    targets = targets.index_select(0, real);
  }
  return at::cross_entropy_loss(generator_->forward(rows), targets, /*weight=*/{}, at::Reduction::Sum, kPadId,
                                label_smoothing);
}

DecoderState TransformerImpl::start(const at::Tensor& source, const at::Tensor& source_lengths) {
  return decoder_->start(encoder_->forward(source, source_lengths), source_lengths);
}

at::Tensor TransformerImpl::step(const at::Tensor& ids, DecoderState& state) {
  return generator_->forward(decoder_->step(ids, state));
}

}  // namespace strobe::nmt
