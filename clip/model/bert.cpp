#include "clip/model/bert.h"

#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "clip/model/names.h"
#include "nn/activation.h"
#include "nn/attend.h"
#include "nn/checkpointing.h"
#include "nn/dropout.h"
#include "nn/residual_norm.h"
#include "strobe/types.h"

namespace strobe::clip {
namespace {

constexpr double kNormEps = 1e-12;
constexpr int64_t kPad = 0;  // its embedding gets no gradient

const TextConfig& checked(const TextConfig& config) {
  if (config.hidden_size % config.num_attention_heads != 0 || config.num_hidden_layers < 1) {
    throw Error(fmt::format("{}: expected heads that divide the hidden size and layers, found {} of {} and {}",
                            config.name, config.num_attention_heads, config.hidden_size, config.num_hidden_layers));
  }
  return config;
}

/// From N(0, initializer_range^2), biases 0.
nn::Linear linear(const TextConfig& config, int64_t in, int64_t out) {
  const c10::NoGradGuard no_grad;
  nn::Linear result(in, out);
  result->weight.normal_(0.0, config.initializer_range);
  result->bias.zero_();
  return result;
}

at::Tensor table(torch::nn::Module& parent, const char* name, const TextConfig& config, int64_t rows) {
  return name_scope(parent, name)
      ->register_parameter("weight", at::empty({rows, config.hidden_size}).normal_(0.0, config.initializer_range));
}

}  // namespace

BertLayerImpl::BertLayerImpl(const TextConfig& config, const std::string& attn_type)
    : heads_(config.num_attention_heads),
      attn_type_(attn_type),
      hidden_dropout_(config.hidden_dropout),
      attention_dropout_(config.attention_dropout) {
  const int64_t hidden = config.hidden_size, intermediate = config.intermediate_size;
  const auto attention = name_scope(*this, "attention");
  const auto self = name_scope(*attention, "self");
  query_ = self->register_module("query", linear(config, hidden, hidden));
  key_ = self->register_module("key", linear(config, hidden, hidden));
  value_ = self->register_module("value", linear(config, hidden, hidden));
  const auto attention_output = name_scope(*attention, "output");
  attention_dense_ = attention_output->register_module("dense", linear(config, hidden, hidden));
  attention_norm_ = attention_output->register_module("LayerNorm", nn::LayerNorm(hidden, kNormEps));
  intermediate_ = name_scope(*this, "intermediate")->register_module("dense", linear(config, hidden, intermediate));
  const auto output = name_scope(*this, "output");
  output_dense_ = output->register_module("dense", linear(config, intermediate, hidden));
  output_norm_ = output->register_module("LayerNorm", nn::LayerNorm(hidden, kNormEps));
}

ops::AttentionOptions BertLayerImpl::attention_from(const nn::Sequences& queries, const TextBatch& texts) const {
  return nn::attention_options(attn_type_, is_training() ? attention_dropout_ : 0.0, queries, texts.keys);
}

at::Tensor BertLayerImpl::forward(const at::Tensor& x, const TextBatch& texts) {
  const at::Tensor qkv = nn::joint_linear(x, {query_, key_, value_});
  return after_attention(x, nn::attend(qkv, heads_, attention_from(texts.queries, texts)));
}

at::Tensor BertLayerImpl::forward_first(const at::Tensor& x, const TextBatch& texts) {
  const at::Tensor first = texts.first_of(x), q = query_->forward(first);
  const at::Tensor attended = nn::attend(texts.packed() ? q : q.unsqueeze(1), nn::joint_linear(x, {key_, value_}),
                                         heads_, attention_from(texts.first, texts));
  return after_attention(first, texts.packed() ? attended : attended.squeeze(1));
}

at::Tensor BertLayerImpl::after_attention(const at::Tensor& x, const at::Tensor& attended) {
  const auto add_and_norm = [&](const at::Tensor& residual, const at::Tensor& input, const nn::Linear& linear,
                                const nn::LayerNorm& norm) {
    return nn::residual_norm(residual, input, linear, norm, hidden_dropout_, is_training()).normed;
  };
  const at::Tensor y = add_and_norm(x, attended, attention_dense_, attention_norm_);
  return add_and_norm(y, nn::gelu_linear(y, intermediate_, nn::Gelu::kExact), output_dense_, output_norm_);
}

BertImpl::BertImpl(const TextConfig& config, const ClipOptions& options)
    : config_(checked(config)), grad_checkpointing_(options.grad_checkpointing) {
  const auto embeddings = name_scope(*this, "embeddings");
  words_ = table(*embeddings, "word_embeddings", config, config.vocab_size);
  positions_ = table(*embeddings, "position_embeddings", config, config.max_position_embeddings);
  types_ = table(*embeddings, "token_type_embeddings", config, config.type_vocab_size);
  norm_ = embeddings->register_module("LayerNorm", nn::LayerNorm(config.hidden_size, kNormEps));
  const auto layers = name_scope(*name_scope(*this, "encoder"), "layer");
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    layers_.push_back(layers->register_module(std::to_string(i), BertLayer(config, options.attn_type)));
  }
}

at::Tensor BertImpl::embed(const TextBatch& texts) {
  // All tokens are of the first type; it is added to the few positions, not to the many tokens.
  const at::Tensor positions = positions_.narrow(0, 0, texts.longest()) + types_.select(0, 0);
  const at::Tensor x = at::embedding(words_, texts.ids, kPad) + texts.at_positions(positions);
  const at::Tensor dropped = nn::dropout(norm_->forward(x), config_.hidden_dropout, is_training());
  // Between the layers a GPU keeps what products take, as it does in the image tower.
  return dropped.is_cuda() ? nn::for_products(dropped) : dropped;
}

at::Tensor BertImpl::run(const BertLayer& layer, const at::Tensor& x, const TextBatch& texts, bool first_only) const {
  const auto compute = [block = layer.ptr(), texts, first_only](const at::Tensor& input) {
    return first_only ? block->forward_first(input, texts) : block->forward(input, texts);
  };
  return grad_checkpointing_ ? nn::checkpoint(compute, x, layer->parameters()) : compute(x);
}

at::Tensor BertImpl::forward(const TextBatch& texts) {
  if (texts.longest() > config_.max_position_embeddings) {
    throw Error(fmt::format("text encoder: expected at most {} tokens a text, found {}",
                            config_.max_position_embeddings, texts.longest()));
  }
  at::Tensor x = embed(texts);
  for (std::size_t i = 0; i < layers_.size(); ++i) x = run(layers_[i], x, texts, i + 1 == layers_.size());
  return x;
}

}  // namespace strobe::clip
