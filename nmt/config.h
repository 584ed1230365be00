// The shape of a translation model, and its form in a checkpoint.
#pragma once

#include <cstdint>
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
  double dropout = 0.1;
  std::string attn_type = "imp_flash_attn";

  nn::LayerConfig layer() const;
};

/// Throws strobe::Error naming the value that is out of range.
void validate(const ModelConfig& config);

train::Dict to_dict(const ModelConfig& config);

/// Throws train::CheckpointError for a missing, unknown or mistyped entry, strobe::Error for one out of range.
ModelConfig model_config(const train::Dict& dict);

}  // namespace strobe::nmt
