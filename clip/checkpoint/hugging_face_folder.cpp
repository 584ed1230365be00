#include "clip/checkpoint/hugging_face_folder.h"

#include <nlohmann/json.hpp>
#include <set>

#include "clip/checkpoint/hugging_face.h"
#include "clip/checkpoint/safetensors.h"
#include "clip/checkpoint/state.h"
#include "clip/checkpoint/towers.h"
#include "train/atomic_file.h"
#include "train/checkpoint.h"
#include "train/mapped_file.h"

namespace strobe::clip {
namespace {

namespace fs = std::filesystem;

using Json = nlohmann::ordered_json;
using train::CheckpointError;
using train::Dict;

constexpr const char* kWeights = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kOldWeights = "pytorch_model.bin";

Dict read_parts(const fs::path& folder) {
  const Json index = Json::parse(train::MappedFile::open(folder / kIndex)->bytes(), nullptr, false);
  const Json map = index.is_object() ? index.value("weight_map", Json()) : Json();
  if (!map.is_object()) throw CheckpointError((folder / kIndex).string() + ": expected a weight_map");
  std::set<std::string> files;
  for (const Json& file : map) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (name.empty() || fs::path(name).filename() != name) {
      throw CheckpointError((folder / kIndex).string() + ": expected names of files, found " + file.dump());
    }
    files.insert(name);
  }
  Dict weights;
  for (const std::string& file : files) {
    for (const auto& [name, tensor] : read_safetensors(folder / file)) weights[name] = tensor;
  }
  return weights;
}

Json text_json(const TextConfig& config) {
  return {{"model_type", "chinese_clip_text_model"},
          {"vocab_size", config.vocab_size},
          {"hidden_size", config.hidden_size},
          {"num_hidden_layers", config.num_hidden_layers},
          {"num_attention_heads", config.num_attention_heads},
          {"intermediate_size", config.intermediate_size},
          {"hidden_act", "gelu"},
          {"hidden_dropout_prob", config.hidden_dropout},
          {"attention_probs_dropout_prob", config.attention_dropout},
          {"max_position_embeddings", config.max_position_embeddings},
          {"type_vocab_size", config.type_vocab_size},
          {"initializer_range", config.initializer_range},
          {"layer_norm_eps", 1e-12},
          {"pad_token_id", 0}};
}

Json vision_json(const VisionConfig& config) {
  return {{"model_type", "chinese_clip_vision_model"},
          {"hidden_size", config.width},
          {"intermediate_size", 4 * config.width},
          {"projection_dim", config.embed_dim},
          {"num_hidden_layers", config.layers.front()},
          {"num_attention_heads", config.num_heads()},
          {"image_size", config.image_resolution},
          {"patch_size", config.patch_size},
          {"hidden_act", "quick_gelu"},
          {"layer_norm_eps", 1e-5},
          {"attention_dropout", 0.0}};
}

Json config_json(const Towers& towers) {
  return {{"architectures", {"ChineseCLIPModel"}},
          {"model_type", "chinese_clip"},
          {"projection_dim", towers.vision.embed_dim},
          {"logit_scale_init_value", 2.6592},
          {"torch_dtype", "float32"},
          {"text_config", text_json(towers.text)},
          {"vision_config", vision_json(towers.vision)}};
}

/// Squashed to a square, as the original does.
Json preprocessor_json(const VisionConfig& config) {
  const Json size = {{"height", config.image_resolution}, {"width", config.image_resolution}};
  return {{"image_processor_type", "ChineseCLIPImageProcessor"},
          {"do_convert_rgb", true},
          {"do_resize", true},
          {"size", size},
          {"resample", 3},  // Pillow's BICUBIC
          {"do_center_crop", false},
          {"do_rescale", true},
          {"rescale_factor", 1.0 / 255},
          {"do_normalize", true},
          {"image_mean", {0.48145466, 0.4578275, 0.40821073}},
          {"image_std", {0.26862954, 0.26130258, 0.27577711}}};
}

void write_json(const fs::path& file, const Json& json) {
  train::write_atomically(file, [&](train::AtomicFile& output) { output.write(json.dump(2) + "\n"); });
}

}  // namespace

Dict read_hugging_face(const fs::path& folder) {
  if (fs::exists(folder / kWeights)) return read_safetensors(folder / kWeights);
  if (fs::exists(folder / kIndex)) return read_parts(folder);
  if (fs::exists(folder / kOldWeights)) {
    return train::load_checkpoint(folder / kOldWeights, train::Objects::kOpaque);
  }
  throw CheckpointError(std::string("expected a folder with ") + kWeights + ", " + kIndex + " or " + kOldWeights +
                        ", found none of them");
}

void write_hugging_face(const fs::path& folder, const Dict& state) {
  const Towers towers = infer_towers(state);
  const Dict weights = to_hugging_face(in_float32(state));
  write_json(folder / "config.json", config_json(towers));
  write_json(folder / "preprocessor_config.json", preprocessor_json(towers.vision));
  write_safetensors(folder / kWeights, weights, {{"format", "pt"}});
}

}  // namespace strobe::clip
