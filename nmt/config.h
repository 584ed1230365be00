// The shape of a translation model, and its form in a checkpoint.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "nn/layers.h"
#include "train/value.h"

namespace strobe::nmt {

/// The defaults are FlashAttentionNMT's model: a pre-norm Transformer base with two vocabularies and nothing tied.
struct ModelConfig {
  int64_t source_vocabulary = 32000;
  int64_t target_vocabulary = 32000;
  int64_t d_model = 512;
  int64_t num_heads = 8;
  int64_t d_ff = 2048;
  int64_t encoder_layers = 6;
  int64_t decoder_layers = 6;
  std::string norm = "pre";             // "pre", or "post" as in Vaswani et al. 2017 (nn/layers.h)
  std::string activation = "relu";      // "relu" or "gelu" (nn/layers.h)
  std::string tie_embeddings = "none";  // "target": the target's embedding is the generator's matrix too; "all": and
                                        // the source's (one joint vocabulary) (Press & Wolf 2017, arXiv 1608.05859)
  double dropout = 0.1;                 // of embeddings and of every sublayer's output
  std::optional<double> attention_dropout, activation_dropout, embedding_dropout;  // null: as `dropout`
  std::string attn_type = "imp_flash_attn";

  double embeddings_dropout() const { return embedding_dropout.value_or(dropout); }

  nn::LayerConfig layer() const;
};

/// Throws strobe::Error naming the value that is out of range.
void validate(const ModelConfig& config);

train::Dict to_dict(const ModelConfig& config);

/// Throws train::CheckpointError for an unknown, mistyped or missing entry, strobe::Error for one out of range. What
/// checkpoints have not held from the first may be missing and is then the default: norm, activation, tie_embeddings
/// and the dropouts by place.
ModelConfig model_config(const train::Dict& dict);

}  // namespace strobe::nmt
