#include "clip/model/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "strobe/types.h"

namespace strobe::clip {
namespace {

const std::vector<VisionConfig>& visions() {
  static const std::vector<VisionConfig> all = {
      {.name = "RN50", .embed_dim = 1024, .layers = {3, 4, 6, 3}, .width = 64, .patch_size = 0},
      {.name = "ViT-B-32", .patch_size = 32},
      {.name = "ViT-B-16"},
      {.name = "ViT-L-14", .embed_dim = 768, .layers = {24}, .width = 1024, .patch_size = 14},
      {.name = "ViT-L-14-336",
       .embed_dim = 768,
       .image_resolution = 336,
       .layers = {24},
       .width = 1024,
       .patch_size = 14},
      {.name = "ViT-H-14", .embed_dim = 1024, .layers = {32}, .width = 1280, .patch_size = 14, .head_width = 80},
      {.name = "ViT-mini-16-96", .embed_dim = 256, .image_resolution = 96, .layers = {4}, .width = 256},
  };
  return all;
}

const std::vector<TextConfig>& texts() {
  static const std::vector<TextConfig> all = {
      {.name = "RBT3-chinese", .num_hidden_layers = 3},
      {.name = "RoBERTa-wwm-ext-base-chinese"},
      {.name = "RoBERTa-wwm-ext-large-chinese",
       .hidden_size = 1024,
       .num_hidden_layers = 24,
       .num_attention_heads = 16,
       .intermediate_size = 4096},
      {.name = "BERT-mini-chinese",
       .hidden_size = 256,
       .num_hidden_layers = 4,
       .num_attention_heads = 4,
       .intermediate_size = 1024},
  };
  return all;
}

template <typename Config>
std::vector<std::string> names_of(const std::vector<Config>& configs) {
  std::vector<std::string> names;
  for (const Config& config : configs) names.push_back(config.name);
  return names;
}

template <typename Config>
const Config& named(const std::vector<Config>& configs, const char* tower, std::string_view name) {
  for (const Config& config : configs) {
    if (config.name == name) return config;
  }
  throw Error(fmt::format("{} model: expected one of {}, found {}", tower, fmt::join(names_of(configs), ", "), name));
}

}  // namespace

const VisionConfig& vision_config(std::string_view name) { return named(visions(), "vision", name); }
const TextConfig& text_config(std::string_view name) { return named(texts(), "text", name); }
std::vector<std::string> vision_names() { return names_of(visions()); }
std::vector<std::string> text_names() { return names_of(texts()); }

}  // namespace strobe::clip
