// The encoder-decoder Transformer for translation (Vaswani et al. 2017).
//
// Pre-norm ends both stacks with a norm, post-norm with their last layer, whose output is normed already: what
// Python's nn.Transformer(norm_first=True) computes, and nn.Transformer with custom_encoder and custom_decoder made
// with norm=None.
//
// A tied matrix is one parameter, of the first that uses it: encoder.embedding, decoder.embedding, generator. It begins
// as either of them would alone (nn/init.h sees the same shape), so that logits begin as small as untied ones.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>

#include <cstdint>
#include <vector>

#include "nmt/batching.h"
#include "nmt/config.h"
#include "nn/embedding.h"
#include "nn/layers.h"

namespace strobe::nmt {

class EncoderImpl : public torch::nn::Module {
 public:
  explicit EncoderImpl(const ModelConfig& config);

  const at::Tensor& embedding_weight() const { return embedding_->weight(); }

  /// source ids [B, Ns] or packed [Ts] -> memory [B, Ns, d_model] or [Ts, d_model]. Rows of padding hold finite values
  /// of no meaning.
  at::Tensor forward(const at::Tensor& source, const nn::Sequences& sequences);

 private:
  nn::TokenEmbedding embedding_;
  torch::nn::ModuleList layers_;
  nn::LayerNorm norm_;  // empty for post-norm
};
TORCH_MODULE(Encoder);

/// What decoding token by token remembers: the hypotheses' keys and values, and the sentences' memories.
class DecoderState {
 public:
  int64_t position() const { return position_; }  // tokens decoded so far

  /// Hypothesis r becomes what rows[r] was. rows [R'] int64; a sentence's hypotheses stay next to each other and equal
  /// in number.
  void reorder(const at::Tensor& rows);

  /// Keeps only these sentences, in this order: sentences [B'] int64. Their hypotheses follow by reorder().
  void keep_sentences(const at::Tensor& sentences);

 private:
  friend class DecoderImpl;
  std::vector<nn::KeyValueCache> caches_;       // a layer each
  std::vector<at::Tensor> memory_keys_values_;  // a layer each, [B, Ns, 2H, D]
  at::Tensor memory_lengths_;                   // [B] int32
  int64_t position_ = 0;
};

class DecoderImpl : public torch::nn::Module {
 public:
  /// `encoder` lends its embedding where the configuration ties all.
  DecoderImpl(const ModelConfig& config, const Encoder& encoder);

  const at::Tensor& embedding_weight() const { return embedding_->weight(); }

  /// target ids [B, Nt] or packed [Tt], each sentence beginning with bos, all at once -> [B, Nt, d_model] or
  /// [Tt, d_model].
  at::Tensor forward(const at::Tensor& target, const nn::Sequences& sequences, const at::Tensor& memory,
                     const nn::Sequences& memory_sequences);

  DecoderState start(const at::Tensor& memory, const at::Tensor& memory_lengths);
  /// The next token of each hypothesis: ids [R] -> [R, d_model].
  at::Tensor step(const at::Tensor& ids, DecoderState& state);

 private:
  nn::TokenEmbedding embedding_;
  torch::nn::ModuleList layers_;
  nn::LayerNorm norm_;  // empty for post-norm
};
TORCH_MODULE(Decoder);

/// From the decoder's output to logits: x W^T + b.
class GeneratorImpl : public torch::nn::Module {
 public:
  /// `decoder` lends its embedding as W where the configuration ties it.
  GeneratorImpl(const ModelConfig& config, const Decoder& decoder);
  /// [..., d_model] -> [..., target_vocabulary].
  at::Tensor forward(const at::Tensor& x);

 private:
  at::Tensor weight_, bias_;
};
TORCH_MODULE(Generator);

class TransformerImpl : public torch::nn::Module {
 public:
  /// Throws strobe::Error for a configuration out of range.
  explicit TransformerImpl(const ModelConfig& config);

  const ModelConfig& config() const { return config_; }

  /// Whether forward() and loss() run on packed tokens, without padding. So do the flash types; dotscale, which would
  /// have to pad them again to materialise its matrices, runs on padded ones.
  bool packs_tokens() const;

  /// Teacher forcing: the logits of the target's real tokens, sentence after sentence,
  /// [target_tokens, target_vocabulary].
  at::Tensor forward(const Batch& batch);

  /// Cross entropy summed over the target's real tokens, 0-d fp32. With label smoothing e the target distribution is
  /// (1 - e) one-hot + e uniform over the vocabulary (Szegedy et al. 2016).
  at::Tensor loss(const Batch& batch, double label_smoothing);

  /// For decoding: the state after reading the source, and the logits [R, target_vocabulary] that follow ids [R].
  DecoderState start(const at::Tensor& source, const at::Tensor& source_lengths);
  at::Tensor step(const at::Tensor& ids, DecoderState& state);

 private:
  ModelConfig config_;
  Encoder encoder_;
  Decoder decoder_;
  Generator generator_;
};
TORCH_MODULE(Transformer);

}  // namespace strobe::nmt
