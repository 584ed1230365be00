#include "cli/nmt_model_options.h"

#include <string>

#include "cli/nmt_options.h"
#include "cli/options.h"

namespace strobe::cli {
namespace {

constexpr char kGroup[] = "Model";

template <typename Value>
CLI::Option* add_size(CLI::App& command, const char* name, Value& value, const char* help) {
  return command.add_option(name, value, help)->check(CLI::PositiveNumber)->group(kGroup);
}

template <typename Value>
CLI::Option* add_dropout(CLI::App& command, const char* name, Value& value, const char* help) {
  return command.add_option(name, value, help)->check(CLI::Range(0.0, 0.999))->group(kGroup);
}

CLI::Option* add_choice(CLI::App& command, const char* name, std::string& value, std::vector<std::string> allowed,
                        const char* help) {
  return command.add_option(name, value, help)->check(one_of(std::move(allowed)))->capture_default_str()->group(kGroup);
}

}  // namespace

void ModelOptions::add_to(CLI::App& command) {
  add_attn_type(command, config_.attn_type)->capture_default_str();
  add_size(command, "--d-model", config_.d_model, "width")->capture_default_str();
  add_size(command, "--heads", config_.num_heads, "attention heads")->capture_default_str();
  add_size(command, "--d-ff", config_.d_ff, "width of the feed-forward's hidden layer")->capture_default_str();
  add_size(command, "--layers", layers_, "encoder and decoder layers")->capture_default_str();
  add_size(command, "--encoder-layers", encoder_layers_, "where they differ from --layers");
  add_size(command, "--decoder-layers", decoder_layers_, "where they differ from --layers");
  add_choice(command, "--norm", config_.norm, {"pre", "post"},
             "layer norm before each sublayer, or after the residual");
  add_choice(command, "--activation", config_.activation, {"relu", "gelu"}, "of the feed-forward's hidden layer");
  add_choice(command, "--tie-embeddings", config_.tie_embeddings, {"none", "target", "all"},
             "one matrix for the target's embeddings and the output; all: and for the source's (joint vocabulary)");
  add_dropout(command, "--dropout", config_.dropout, "of embeddings and residuals, and of what is not given its own")
      ->capture_default_str();
  add_dropout(command, "--attention-dropout", config_.attention_dropout, "of attention probabilities [as --dropout]");
  add_dropout(command, "--activation-dropout", config_.activation_dropout,
              "of the feed-forward's hidden units [as --dropout]");
  add_dropout(command, "--embedding-dropout", config_.embedding_dropout, "of embeddings [as --dropout]");
}

nmt::ModelConfig ModelOptions::config() const {
  nmt::ModelConfig config = config_;
  config.encoder_layers = encoder_layers_.value_or(layers_);
  config.decoder_layers = decoder_layers_.value_or(layers_);
  return config;
}

}  // namespace strobe::cli
