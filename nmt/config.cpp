#include "nmt/config.h"

#include <algorithm>
#include <initializer_list>
#include <type_traits>
#include <variant>
#include <vector>

#include "ops/nearest_name.h"
#include "strobe/types.h"

namespace strobe::nmt {
namespace {

enum class Presence { kAlways, kSinceLater };

/// Calls visit(name, field, presence in checkpoints) for every field of the configuration, const or not.
template <typename Config, typename Visit>
void for_each_field(Config& config, const Visit& visit) {
  visit("source_vocabulary", config.source_vocabulary, Presence::kAlways);
  visit("target_vocabulary", config.target_vocabulary, Presence::kAlways);
  visit("d_model", config.d_model, Presence::kAlways);
  visit("num_heads", config.num_heads, Presence::kAlways);
  visit("d_ff", config.d_ff, Presence::kAlways);
  visit("encoder_layers", config.encoder_layers, Presence::kAlways);
  visit("decoder_layers", config.decoder_layers, Presence::kAlways);
  visit("norm", config.norm, Presence::kSinceLater);
  visit("activation", config.activation, Presence::kSinceLater);
  visit("tie_embeddings", config.tie_embeddings, Presence::kSinceLater);
  visit("dropout", config.dropout, Presence::kAlways);
  visit("attention_dropout", config.attention_dropout, Presence::kSinceLater);
  visit("activation_dropout", config.activation_dropout, Presence::kSinceLater);
  visit("embedding_dropout", config.embedding_dropout, Presence::kSinceLater);
  visit("attn_type", config.attn_type, Presence::kAlways);
}

void read(const train::Value& value, int64_t& field) { field = value.as_int(); }
void read(const train::Value& value, double& field) { field = value.as_double(); }
void read(const train::Value& value, std::optional<double>& field) { field = value.as_double(); }
void read(const train::Value& value, std::string& field) { field = value.as_string(); }

template <typename Field>
constexpr bool is_dropout = std::is_same_v<Field, double> || std::is_same_v<Field, std::optional<double>>;

void require(bool holds, const char* name, const std::string& expected, const std::string& found) {
  if (!holds) throw Error(std::string("translation model: ") + name + " must be " + expected + ", got " + found);
}

void require_one_of(const char* name, const std::string& found, std::initializer_list<const char*> allowed) {
  std::string expected;
  for (const char* one : allowed) {
    if (found == one) return;
    expected += (expected.empty() ? "" : " or ") + std::string(one);
  }
  require(false, name, expected, '"' + found + '"');
}

}  // namespace

nn::LayerConfig ModelConfig::layer() const {
  nn::LayerConfig layer;
  layer.d_model = d_model;
  layer.num_heads = num_heads;
  layer.d_ff = d_ff;
  layer.dropout = dropout;
  layer.attention_dropout = attention_dropout.value_or(dropout);
  layer.activation_dropout = activation_dropout.value_or(dropout);
  layer.norm = norm == "post" ? nn::NormPlacement::kPost : nn::NormPlacement::kPre;
  layer.activation = activation == "gelu" ? nn::Activation::kGelu : nn::Activation::kRelu;
  layer.attn_type = attn_type;
  return layer;
}

void validate(const ModelConfig& config) {
  for_each_field(config, [&](const char* name, const auto& field, Presence) {
    using Field = std::decay_t<decltype(field)>;
    if constexpr (std::is_same_v<Field, int64_t>) require(field > 0, name, "positive", std::to_string(field));
    if constexpr (is_dropout<Field>) {
      const double share = std::optional<double>(field).value_or(0.0);
      require(share >= 0.0 && share < 1.0, name, "at least 0 and below 1", std::to_string(share));
    }
  });
  require(config.d_model % 2 == 0, "d_model", "even", std::to_string(config.d_model));
  require(config.d_model % config.num_heads == 0, "num_heads", "a divisor of d_model " + std::to_string(config.d_model),
          std::to_string(config.num_heads));
  require_one_of("norm", config.norm, {"pre", "post"});
  require_one_of("activation", config.activation, {"relu", "gelu"});
  require_one_of("tie_embeddings", config.tie_embeddings, {"none", "target", "all"});
  require_one_of("attn_type", config.attn_type, {"dotscale", "flash_attn", "imp_flash_attn"});
  require(config.tie_embeddings != "all" || config.source_vocabulary == config.target_vocabulary, "tie_embeddings",
          "none or target where source and target have vocabularies of their own (" +
              std::to_string(config.source_vocabulary) + " and " + std::to_string(config.target_vocabulary) +
              " pieces; `strobe nmt prepare --joint-vocabulary` makes one for both)",
          "all");
}

train::Dict to_dict(const ModelConfig& config) {
  train::Dict dict;
  for_each_field(config, [&](const char* name, const auto& field, Presence) {
    if constexpr (std::is_same_v<std::decay_t<decltype(field)>, std::optional<double>>) {
      dict[std::string(name)] = field.value_or(config.dropout);
    } else {
      dict[std::string(name)] = field;
    }
  });
  return dict;
}

ModelConfig model_config(const train::Dict& dict) {
  ModelConfig config;
  std::vector<std::string> known;
  for_each_field(config, [&](const char* name, auto& field, Presence presence) {
    known.emplace_back(name);
    if (dict.contains(known.back()) || presence == Presence::kAlways) read(dict.at(known.back()), field);
  });
  for (const auto& [key, value] : dict) {
    const auto* name = std::get_if<std::string>(&key);
    if (name != nullptr && std::find(known.begin(), known.end(), *name) != known.end()) continue;
    const std::string found = name != nullptr ? *name : std::to_string(std::get<int64_t>(key));
    const std::string near = ops::nearest_name(found, known);
    throw train::CheckpointError("translation model: the configuration holds an unknown entry \"" + found + "\"" +
                                 (near.empty() ? "" : ", nearest is \"" + near + "\"") +
                                 ": it was written by another version of the program");
  }
  validate(config);
  return config;
}

}  // namespace strobe::nmt
