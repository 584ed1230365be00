#include "nmt/config.h"

#include <utility>
#include <vector>

#include "strobe/types.h"

namespace strobe::nmt {
namespace {

/// Calls visit(name, field) for every field of the configuration, const or not.
template <typename Config, typename Visit>
void for_each_field(Config& config, const Visit& visit) {
  visit("source_vocabulary", config.source_vocabulary);
  visit("target_vocabulary", config.target_vocabulary);
  visit("d_model", config.d_model);
  visit("num_heads", config.num_heads);
  visit("d_ff", config.d_ff);
  visit("encoder_layers", config.encoder_layers);
  visit("decoder_layers", config.decoder_layers);
  visit("dropout", config.dropout);
  visit("attn_type", config.attn_type);
}

void read(const train::Value& value, int64_t& field) { field = value.as_int(); }
void read(const train::Value& value, double& field) { field = value.as_double(); }
void read(const train::Value& value, std::string& field) { field = value.as_string(); }

void require(bool holds, const char* name, const std::string& expected, const std::string& found) {
  if (!holds) throw Error(std::string("translation model: ") + name + " must be " + expected + ", got " + found);
}

}  // namespace

nn::LayerConfig ModelConfig::layer() const {
  nn::LayerConfig layer;
  layer.d_model = d_model;
  layer.num_heads = num_heads;
  layer.d_ff = d_ff;
  layer.dropout = dropout;
  layer.attn_type = attn_type;
  return layer;
}

void validate(const ModelConfig& config) {
  const auto positive = [](const char* name, int64_t value) {
    require(value > 0, name, "positive", std::to_string(value));
  };
  for_each_field(config, [&](const char* name, const auto& field) {
    if constexpr (std::is_same_v<std::decay_t<decltype(field)>, int64_t>) positive(name, field);
  });
  require(config.d_model % 2 == 0, "d_model", "even", std::to_string(config.d_model));
  require(config.d_model % config.num_heads == 0, "num_heads", "a divisor of d_model " + std::to_string(config.d_model),
          std::to_string(config.num_heads));
  require(config.dropout >= 0.0 && config.dropout < 1.0, "dropout", "at least 0 and below 1",
          std::to_string(config.dropout));
  require(config.attn_type == "dotscale" || config.attn_type == "flash_attn" || config.attn_type == "imp_flash_attn",
          "attn_type", "dotscale, flash_attn or imp_flash_attn", '"' + config.attn_type + '"');
}

train::Dict to_dict(const ModelConfig& config) {
  train::Dict dict;
  for_each_field(config, [&](const char* name, const auto& field) { dict[std::string(name)] = train::Value(field); });
  return dict;
}

ModelConfig model_config(const train::Dict& dict) {
  ModelConfig config;
  std::size_t known = 0;
  for_each_field(config, [&](const char* name, auto& field) {
    read(dict.at(std::string(name)), field);
    ++known;
  });
  if (dict.size() != known) {
    throw train::CheckpointError("translation model: the configuration holds " + std::to_string(dict.size()) +
                                 " entries, expected " + std::to_string(known) +
                                 ": it was written by another version of the program");
  }
  validate(config);
  return config;
}

}  // namespace strobe::nmt
