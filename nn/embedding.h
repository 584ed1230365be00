// Token embeddings with sinusoidal positions (Vaswani et al. 2017, sections 3.4 and 3.5).
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/embedding.h>

#include <cstdint>

#include "nn/sequences.h"

namespace strobe::nn {

/// [length, d_model] of a floating dtype: sin(p / 10000^(i / d_model)) in the even columns i, the cosine of the same
/// angle in the odd column that follows, rounded once from double. d_model is even.
at::Tensor sinusoidal_positions(int64_t length, int64_t d_model, at::ScalarType dtype = at::kFloat);

/// sqrt(d_model) * weight[id] + position, then dropout in training. On CUDA the result is of the dtype that products
/// take there, which is what the layers pass on.
class TokenEmbeddingImpl : public torch::nn::Module {
 public:
  /// A weight of its own, the parameter tokens.weight, which begins as nn/init.h says.
  TokenEmbeddingImpl(int64_t vocabulary, int64_t d_model, double dropout);

  /// The weight of another module, [vocabulary, d_model], which stays that module's parameter.
  TokenEmbeddingImpl(const at::Tensor& weight, double dropout);

  /// [vocabulary, d_model]; stays the same tensor wherever the module goes, so that it can be shared.
  const at::Tensor& weight() const { return weight_; }

  /// ids [B, N] int64 at positions 0..N-1 -> [B, N, d_model]; packed ids [T], each at its own -> [T, d_model].
  at::Tensor forward(const at::Tensor& ids, const Sequences& sequences = {});

  /// ids [R] int64, all at `position` -> [R, d_model].
  at::Tensor step(const at::Tensor& ids, int64_t position);

 private:
  TokenEmbeddingImpl(const torch::nn::Embedding& tokens, double dropout);
  /// The table of positions with `needed` rows or more, where the weight is and in its dtype.
  const at::Tensor& positions(int64_t needed);
  at::Tensor embed(const at::Tensor& ids, const at::Tensor& rows);  // of that table

  at::Tensor weight_;
  at::Tensor positions_;  // [at least as long as ever needed, d_model]; not part of a checkpoint
  double scale_;
  double dropout_;
};
TORCH_MODULE(TokenEmbedding);

}  // namespace strobe::nn
