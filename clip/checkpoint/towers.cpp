#include "clip/checkpoint/towers.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

namespace strobe::clip {
namespace {

using train::CheckpointError;
using train::Dict;

const at::Tensor& weight(const Dict& state, const std::string& name, int64_t dims) {
  const train::Value* value = state.find(name);
  if (value == nullptr) throw CheckpointError("expected the weights of a Chinese-CLIP, found no " + name);
  const at::Tensor& tensor = value->as_tensor();
  if (tensor.dim() != dims) {
    throw CheckpointError(
        fmt::format("{}: expected {} dimensions, found [{}]", name, dims, fmt::join(tensor.sizes(), ", ")));
  }
  return tensor;
}

template <typename Name>
int64_t count(const Dict& state, const Name& name) {
  int64_t i = 0;
  while (state.contains(name(std::to_string(i)))) ++i;
  return i;
}

/// Of the position embeddings, the class or mean token's among them.
int64_t grid_of(const Dict& state, const std::string& name) {
  const int64_t places = weight(state, name, 2).size(0) - 1;
  const auto grid = static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(std::max(places, int64_t{0})))));
  if (grid < 1 || grid * grid != places) {
    throw CheckpointError(fmt::format("{}: expected 1 + grid * grid rows, found {}", name, places + 1));
  }
  return grid;
}

VisionConfig infer_vit(const Dict& state) {
  VisionConfig config;
  const at::Tensor& patches = weight(state, "visual.conv1.weight", 4);
  config.width = patches.size(0);
  config.patch_size = patches.size(2);
  config.embed_dim = weight(state, "visual.proj", 2).size(1);
  config.image_resolution = grid_of(state, "visual.positional_embedding") * config.patch_size;
  config.layers = {
      count(state, [](const std::string& i) { return "visual.transformer.resblocks." + i + ".ln_1.weight"; })};
  config.head_width = config.width == 1280 ? 80 : 64;
  return config;
}

VisionConfig infer_resnet(const Dict& state) {
  VisionConfig config;
  config.width = weight(state, "visual.layer1.0.conv1.weight", 4).size(0);
  config.patch_size = 0;
  config.embed_dim = weight(state, "visual.attnpool.c_proj.weight", 2).size(0);
  config.image_resolution = grid_of(state, "visual.attnpool.positional_embedding") * 32;
  config.layers.clear();
  for (const char* layer : {"1", "2", "3", "4"}) {
    config.layers.push_back(count(
        state, [&](const std::string& i) { return std::string("visual.layer") + layer + "." + i + ".conv1.weight"; }));
  }
  return config;
}

TextConfig infer_text(const Dict& state) {
  const std::string embeddings = "bert.embeddings.", layers = "bert.encoder.layer.";
  TextConfig config;
  const at::Tensor& words = weight(state, embeddings + "word_embeddings.weight", 2);
  config.vocab_size = words.size(0);
  config.hidden_size = words.size(1);
  config.max_position_embeddings = weight(state, embeddings + "position_embeddings.weight", 2).size(0);
  config.type_vocab_size = weight(state, embeddings + "token_type_embeddings.weight", 2).size(0);
  config.intermediate_size = weight(state, layers + "0.intermediate.dense.weight", 2).size(0);
  config.num_hidden_layers = count(state, [&](const std::string& i) { return layers + i + ".output.dense.weight"; });
  config.num_attention_heads = std::max(config.hidden_size / 64, int64_t{1});
  return config;
}

bool same_tower(const VisionConfig& a, const VisionConfig& b) {
  return a.embed_dim == b.embed_dim && a.layers == b.layers && a.width == b.width && a.patch_size == b.patch_size &&
         (a.is_vit() || a.image_resolution == b.image_resolution);
}

bool same_tower(const TextConfig& a, const TextConfig& b) {
  return a.vocab_size == b.vocab_size && a.hidden_size == b.hidden_size && a.num_hidden_layers == b.num_hidden_layers &&
         a.intermediate_size == b.intermediate_size && a.max_position_embeddings == b.max_position_embeddings &&
         a.type_vocab_size == b.type_vocab_size;
}

std::string describe(const VisionConfig& config) {
  if (!config.name.empty()) return config.name;
  return fmt::format("a {} of width {}, {} layers, {} pixels, {} features", config.is_vit() ? "ViT" : "ResNet",
                     config.width, fmt::join(config.layers, "+"), config.image_resolution, config.embed_dim);
}

std::string describe(const TextConfig& config) {
  if (!config.name.empty()) return config.name;
  return fmt::format("a BERT of width {}, {} layers, {} words", config.hidden_size, config.num_hidden_layers,
                     config.vocab_size);
}

}  // namespace

Towers infer_towers(const Dict& state) {
  Towers towers;
  towers.vision = state.contains("visual.class_embedding") ? infer_vit(state) : infer_resnet(state);
  towers.text = infer_text(state);
  towers.vision.name = towers.text.name = "";
  for (const std::string& name : vision_names()) {
    const VisionConfig& known = vision_config(name);
    if (same_tower(known, towers.vision) && known.image_resolution == towers.vision.image_resolution) {
      towers.vision = known;
    }
  }
  for (const std::string& name : text_names()) {
    if (same_tower(text_config(name), towers.text)) towers.text = text_config(name);
  }
  return towers;
}

std::string describe(const Towers& towers) { return describe(towers.vision) + " with " + describe(towers.text); }

void check_towers(const Dict& state, const VisionConfig& vision, const TextConfig& text) {
  const Towers found = infer_towers(state);
  if (same_tower(found.vision, vision) && same_tower(found.text, text)) return;
  throw CheckpointError(
      fmt::format("expected weights of {}, found those of {}", describe(Towers{vision, text}), describe(found)));
}

}  // namespace strobe::clip
