// Small translation models and random batches for tests.
#pragma once

#include <ATen/Context.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "nmt/batching.h"
#include "nmt/transformer.h"
#include "nmt/vocabulary.h"

namespace strobe::nmt {

inline ModelConfig small_config(const std::string& attn_type, double dropout = 0.1) {
  ModelConfig config;
  config.source_vocabulary = 50;
  config.target_vocabulary = 46;
  config.d_model = 32;
  config.num_heads = 4;
  config.d_ff = 64;
  config.encoder_layers = config.decoder_layers = 2;
  config.dropout = dropout;
  config.attn_type = attn_type;
  return config;
}

/// What a model can be besides its size.
struct Variant {
  std::string attn_type = "imp_flash_attn";
  std::string norm = "pre";
  std::string tie_embeddings = "none";
  std::string activation = "relu";
};

inline ModelConfig small_config(const Variant& variant, double dropout = 0.1) {
  ModelConfig config = small_config(variant.attn_type, dropout);
  config.norm = variant.norm;
  config.tie_embeddings = variant.tie_embeddings;
  config.activation = variant.activation;
  if (variant.tie_embeddings == "all") config.source_vocabulary = config.target_vocabulary;
  return config;
}

/// A model from `seed`: the same weights for every attention type.
inline Transformer seeded_model(const ModelConfig& config, uint64_t seed = 1) {
  at::manual_seed(seed);
  return Transformer(config);
}

/// Sentences of random ids and random lengths up to `longest`, bos and eos included.
inline std::vector<EncodedPair> random_pairs(int64_t count, const ModelConfig& config, int64_t longest, uint64_t seed) {
  std::mt19937_64 engine(seed);
  const auto sentence = [&](int64_t vocabulary) {
    std::vector<int64_t> ids = {kBosId};
    const int64_t length = std::uniform_int_distribution<int64_t>(1, longest - 2)(engine);
    for (int64_t i = 0; i < length; ++i) {
      ids.push_back(std::uniform_int_distribution<int64_t>(kEosId + 1, vocabulary - 1)(engine));
    }
    ids.push_back(kEosId);
    return ids;
  };
  std::vector<EncodedPair> pairs;
  for (int64_t i = 0; i < count; ++i) {
    pairs.push_back({sentence(config.source_vocabulary), sentence(config.target_vocabulary)});
  }
  return pairs;
}

inline Batch batch_of(const std::vector<EncodedPair>& pairs) {
  std::vector<int64_t> all(pairs.size());
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int64_t>(i);
  return make_batch(pairs, all, at::kCPU);
}

/// What a model gives for the real target tokens, [T, V] -> [B, Nt, V] with 0 in the padding.
inline at::Tensor padded(const at::Tensor& logits, const Batch& batch) {
  const at::Tensor all = at::zeros({batch.target_in.numel(), logits.size(1)}, logits.options());
  const at::Tensor filled = all.index_copy(0, batch.target_real.slots, logits);
  return filled.view({batch.target_in.size(0), batch.target_in.size(1), logits.size(1)});
}

/// Every attention in a pre-norm model, and every other option once.
class EveryModel : public testing::TestWithParam<Variant> {};
#define STROBE_FOR_EVERY_MODEL(suite)                                                                        \
  INSTANTIATE_TEST_SUITE_P(                                                                                  \
      Models, suite,                                                                                         \
      testing::Values(Variant{"dotscale"}, Variant{"flash_attn"}, Variant{"imp_flash_attn"},                 \
                      Variant{"imp_flash_attn", "post"}, Variant{"imp_flash_attn", "pre", "target", "gelu"}, \
                      Variant{"imp_flash_attn", "post", "all"}),                                             \
      [](const auto& info) {                                                                                 \
        const Variant& v = info.param;                                                                       \
        return v.attn_type + "_" + v.norm + "_" + v.tie_embeddings + "_" + v.activation;                     \
      })

class EveryAttention : public testing::TestWithParam<const char*> {};
#define STROBE_FOR_EVERY_ATTENTION(suite) \
  INSTANTIATE_TEST_SUITE_P(Types, suite, testing::Values("dotscale", "flash_attn", "imp_flash_attn"))

}  // namespace strobe::nmt
