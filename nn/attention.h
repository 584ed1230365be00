// Multi-head attention (Vaswani et al. 2017, arXiv 1706.03762, section 3.2) over strobe::attention, with packed
// projections: one product makes the operator's packed input, and its one packed gradient goes straight back into that
// product.
//
// Tokens are padded or packed (nn/sequences.h). Padded keys are hidden, padded query rows are not computed (the
// attention gives them 0). Dropout of the probabilities is the same in both layouts.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <string>

#include "nn/linear.h"
#include "nn/sequences.h"
#include "ops/attention.h"

namespace strobe::nn {

struct AttentionConfig {
  int64_t d_model = 512;
  int64_t num_heads = 8;  // divides d_model
  double dropout = 0.1;   // of the attention probabilities, in training only
  std::string attn_type = "imp_flash_attn";
};

/// The keys and values of the tokens decoded so far, a row for each hypothesis.
class KeyValueCache {
 public:
  int64_t length() const { return length_; }

  /// Adds one token's keys and values, kv [R, 2H, D], and returns all of them, [R, length, 2H, D], without a copy.
  at::Tensor append(const at::Tensor& kv);

  /// Row r becomes what row rows[r] was; rows [R'] int64.
  void reorder(const at::Tensor& rows);

 private:
  at::Tensor storage_;  // [R, capacity, 2H, D]
  int64_t length_ = 0;
};

class SelfAttentionImpl : public torch::nn::Module {
 public:
  explicit SelfAttentionImpl(const AttentionConfig& config);

  /// What the heads found, side by side: x [B, N, d_model] or packed [T, d_model] -> like x.
  at::Tensor heads(const at::Tensor& x, const Sequences& sequences, bool causal);

  /// The same for one decoded token a row: x [R, d_model] -> [R, d_model], attending to the cache's tokens and itself.
  at::Tensor step(const at::Tensor& x, KeyValueCache& cache);

  /// The projection of the heads, which the residual connection computes (nn/residual_norm.h).
  Linear out() const { return out_; }

 private:
  AttentionConfig config_;
  Linear qkv_;  // rows: queries, keys, values; each num_heads x head_dim
  Linear out_;
};
TORCH_MODULE(SelfAttention);

class CrossAttentionImpl : public torch::nn::Module {
 public:
  explicit CrossAttentionImpl(const AttentionConfig& config);

  /// memory [B, Nk, d_model] -> keys and values in one tensor [B, Nk, 2H, D], reusable while the memory stays; of
  /// packed memory [Tk, d_model], [Tk, 2H, D].
  at::Tensor keys_values(const at::Tensor& memory);

  /// What the heads found, side by side: x [B, Nq, d_model] or packed [Tq, d_model] -> like x. Nq are a sentence's
  /// tokens, or its hypotheses while decoding. Either both sides are packed or neither.
  at::Tensor heads(const at::Tensor& x, const Sequences& queries, const at::Tensor& keys_values, const Sequences& keys);

  /// The projection of the heads, which the residual connection computes (nn/residual_norm.h).
  Linear out() const { return out_; }

 private:
  AttentionConfig config_;
  Linear q_;
  Linear kv_;  // rows: keys, values
  Linear out_;
};
TORCH_MODULE(CrossAttention);

}  // namespace strobe::nn
