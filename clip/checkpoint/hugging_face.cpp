#include "clip/checkpoint/hugging_face.h"

#include <ATen/ops/cat.h>

#include <map>
#include <string>
#include <string_view>

namespace strobe::clip {
namespace {

using train::CheckpointError;
using train::Dict;

struct Names {
  std::string_view original, hugging_face;
};

constexpr Names kTransposed[] = {
    {"text_projection", "text_projection.weight"},
    {"visual.proj", "visual_projection.weight"},
};

/// Beginnings, or whole names; the first that fits counts.
constexpr Names kPrefixes[] = {
    {"logit_scale", "logit_scale"},
    {"bert.", "text_model."},
    {"visual.ln_pre.", "vision_model.pre_layrnorm."},
    {"visual.ln_post.", "vision_model.post_layernorm."},
    {"visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"},
    {"visual.class_embedding", "vision_model.embeddings.class_embedding"},
    {"visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"},
    {"visual.transformer.resblocks.", "vision_model.encoder.layers."},
};

/// What follows the number of a layer of the vision tower.
constexpr Names kLayerParts[] = {
    {"ln_1.", "layer_norm1."},
    {"ln_2.", "layer_norm2."},
    {"mlp.c_fc.", "mlp.fc1."},
    {"mlp.c_proj.", "mlp.fc2."},
    {"attn.out_proj.", "self_attn.out_proj."},
};

constexpr std::string_view kLayers = "vision_model.encoder.layers.", kBlocks = "visual.transformer.resblocks.";
constexpr std::string_view kPackedParts[] = {"q_proj.", "k_proj.", "v_proj."};

/// Buffers that files of older versions hold, and the pooler that the model does not use.
bool is_left_out(std::string_view name) {
  return name.ends_with(".position_ids") || name.ends_with(".token_type_ids") ||
         name.find(".pooler.") != std::string_view::npos;
}

/// The name with the member `from` of the first fitting entry replaced by `to`, "" if none fits.
template <std::size_t N>
std::string rename(const Names (&table)[N], std::string_view Names::*from, std::string_view Names::*to,
                   std::string_view name) {
  for (const Names& entry : table) {
    const bool is_prefix = (entry.*from).ends_with('.');
    if (is_prefix ? name.starts_with(entry.*from) : name == entry.*from) {
      return std::string(entry.*to) + std::string(name.substr((entry.*from).size()));
    }
  }
  return "";
}

/// "PREFIX" "7." "REST"
struct LayerName {
  std::string number;  // with the dot
  std::string_view rest;
};

LayerName split_layer(std::string_view name, std::string_view prefix) {
  name.remove_prefix(prefix.size());
  const std::size_t dot = name.find('.');
  if (dot == std::string_view::npos) return {"", name};
  return {std::string(name.substr(0, dot + 1)), name.substr(dot + 1)};
}

[[noreturn]] void refuse(std::string_view name, const char* model) {
  throw CheckpointError("the weight " + std::string(name) + " has no place in " + model);
}

/// Collects the parts of packed projections until all three are there.
class Importer {
 public:
  void add(const std::string& name, const at::Tensor& tensor) {
    if (is_left_out(name)) return;
    for (const Names& names : kTransposed) {
      if (name == names.hugging_face) return put(std::string(names.original), tensor.t());
    }
    if (name.starts_with(kLayers)) return add_layer(name, tensor);
    const std::string original = rename(kPrefixes, &Names::hugging_face, &Names::original, name);
    if (original.empty()) refuse(name, "Chinese-CLIP");
    put(original, tensor);
  }

  Dict run() && {
    if (!packed_.empty()) {
      throw CheckpointError("expected queries, keys and values, found only some of " + packed_.begin()->first);
    }
    return std::move(state_);
  }

 private:
  void add_layer(const std::string& name, const at::Tensor& tensor) {
    const auto [number, rest] = split_layer(name, kLayers);
    const std::string block = std::string(kBlocks) + number;
    for (std::size_t part = 0; part < std::size(kPackedParts); ++part) {
      const std::string prefix = "self_attn." + std::string(kPackedParts[part]);
      if (rest.starts_with(prefix))
        return pack(block + "attn.in_proj_" + std::string(rest.substr(prefix.size())), part, tensor);
    }
    const std::string original = rename(kLayerParts, &Names::hugging_face, &Names::original, rest);
    if (original.empty()) refuse(name, "Chinese-CLIP");
    put(block + original, tensor);
  }

  void pack(const std::string& name, std::size_t part, const at::Tensor& tensor) {
    auto& parts = packed_.try_emplace(name, std::size(kPackedParts)).first->second;
    parts[part] = tensor;
    for (const at::Tensor& each : parts) {
      if (!each.defined()) return;
    }
    put(name, at::cat(parts));
    packed_.erase(name);
  }

  void put(const std::string& name, const at::Tensor& tensor) { state_[name] = tensor; }

  Dict state_;
  std::map<std::string, std::vector<at::Tensor>> packed_;
};

class Exporter {
 public:
  void add(const std::string& name, const at::Tensor& tensor) {
    for (const Names& names : kTransposed) {
      if (name == names.original) return put(std::string(names.hugging_face), tensor.t());
    }
    if (name.starts_with(kBlocks)) return add_block(name, tensor);
    const std::string renamed = rename(kPrefixes, &Names::original, &Names::hugging_face, name);
    if (renamed.empty()) refuse(name, "Hugging Face's ChineseCLIPModel");
    put(renamed, tensor);
  }

  Dict run() && { return std::move(weights_); }

 private:
  void add_block(const std::string& name, const at::Tensor& tensor) {
    const auto [number, rest] = split_layer(name, kBlocks);
    const std::string layer = std::string(kLayers) + number;
    constexpr std::string_view kPacked = "attn.in_proj_";
    if (rest.starts_with(kPacked)) {
      const std::vector<at::Tensor> parts = tensor.chunk(3);
      for (std::size_t part = 0; part < parts.size(); ++part) {
        put(layer + "self_attn." + std::string(kPackedParts[part]) + std::string(rest.substr(kPacked.size())),
            parts[part]);
      }
      return;
    }
    const std::string renamed = rename(kLayerParts, &Names::original, &Names::hugging_face, rest);
    if (renamed.empty()) refuse(name, "Hugging Face's ChineseCLIPModel");
    put(layer + renamed, tensor);
  }

  void put(const std::string& name, const at::Tensor& tensor) { weights_[name] = tensor.contiguous(); }

  Dict weights_;
};

template <typename Mapping>
Dict map_names(const Dict& tensors) {
  Mapping mapping;
  for (const auto& [key, value] : tensors) mapping.add(std::get<std::string>(key), value.as_tensor());
  return std::move(mapping).run();
}

}  // namespace

bool is_hugging_face(const Dict& weights) {
  return weights.contains("text_projection.weight") && weights.contains("visual_projection.weight");
}

Dict from_hugging_face(const Dict& weights) { return map_names<Importer>(weights); }

Dict to_hugging_face(const Dict& state) {
  if (state.contains("visual.layer1.0.conv1.weight")) {
    throw CheckpointError("Hugging Face's ChineseCLIPModel has no ResNet: expected the weights of a ViT");
  }
  return map_names<Exporter>(state);
}

}  // namespace strobe::clip
