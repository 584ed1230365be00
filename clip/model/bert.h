// BERT (Devlin et al. 2018, arXiv 1810.04805) without the pooler: post-norm layers, GELU, learned positions.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <string>
#include <vector>

#include "clip/model/config.h"
#include "clip/model/options.h"
#include "clip/model/text_batch.h"
#include "nn/layer_norm.h"
#include "nn/linear.h"
#include "ops/attention.h"

namespace strobe::clip {

class BertLayerImpl : public torch::nn::Module {
 public:
  BertLayerImpl(const TextConfig& config, const std::string& attn_type);

  /// x [B, L, hidden] or [T, hidden], as the texts lie, -> the same.
  at::Tensor forward(const at::Tensor& x, const TextBatch& texts);

  /// What forward() has in the rows of the first tokens, [B, hidden], computing nothing for the other rows but their
  /// keys and values.
  at::Tensor forward_first(const at::Tensor& x, const TextBatch& texts);

 private:
  at::Tensor after_attention(const at::Tensor& x, const at::Tensor& attended);
  /// From the queries given to all tokens.
  ops::AttentionOptions attention_from(const nn::Sequences& queries, const TextBatch& texts) const;

  int64_t heads_;
  std::string attn_type_;
  double hidden_dropout_, attention_dropout_;
  nn::Linear query_{nullptr}, key_{nullptr}, value_{nullptr}, attention_dense_{nullptr}, intermediate_{nullptr},
      output_dense_{nullptr};
  nn::LayerNorm attention_norm_{nullptr}, output_norm_{nullptr};
};
TORCH_MODULE(BertLayer);

class BertImpl : public torch::nn::Module {
 public:
  BertImpl(const TextConfig& config, const ClipOptions& options);

  /// The last hidden state of each text's first token ([CLS]): [B, hidden].
  at::Tensor forward(const TextBatch& texts);

 private:
  at::Tensor embed(const TextBatch& texts);
  at::Tensor run(const BertLayer& layer, const at::Tensor& x, const TextBatch& texts, bool first_only) const;

  TextConfig config_;
  bool grad_checkpointing_;
  at::Tensor words_, positions_, types_;  // [vocabulary, hidden], [512, hidden], [2, hidden]
  nn::LayerNorm norm_{nullptr};
  std::vector<BertLayer> layers_;
};
TORCH_MODULE(Bert);

}  // namespace strobe::clip
