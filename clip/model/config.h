// The sizes of Chinese-CLIP's towers (Yang et al. 2022, arXiv 2211.01335), under the names that its configuration files
// (cn_clip/clip/model_configs) have, and the small ones of our own that train on a CPU in minutes: ViT-mini-16-96, and
// BERT-mini-chinese with the sizes of BERT-Mini (Turc et al. 2019, arXiv 1908.08962).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace strobe::clip {

/// The image tower: a ViT (Dosovitskiy et al. 2020) where there is a patch size, else CLIP's modified ResNet (Radford
/// et al. 2021, section 2.4).
struct VisionConfig {
  std::string name;
  int64_t embed_dim = 512;             // of the joint space
  int64_t image_resolution = 224;      // pixels a side
  std::vector<int64_t> layers = {12};  // a ViT's blocks; a ResNet's bottlenecks in each of its four stages
  int64_t width = 768;                 // of a ViT's tokens; of a ResNet's first stage
  int64_t patch_size = 16;             // pixels a side; 0: a ResNet
  int64_t head_width = 64;

  bool is_vit() const { return patch_size > 0; }
  int64_t feature_width() const { return is_vit() ? width : 32 * width; }  // of what is pooled
  int64_t num_heads() const { return feature_width() / head_width; }
  int64_t grid() const { return image_resolution / (is_vit() ? patch_size : 32); }  // places a side
  int64_t num_tokens() const { return grid() * grid() + 1; }                        // with the class or mean token
};

/// The text tower: RoBERTa-wwm-ext (Cui et al. 2019, arXiv 1906.08101) in BERT's architecture, or RBT3, its three
/// layers.
struct TextConfig {
  std::string name;
  int64_t vocab_size = 21128;
  int64_t hidden_size = 768;
  int64_t num_hidden_layers = 12;
  int64_t num_attention_heads = 12;
  int64_t intermediate_size = 3072;
  int64_t max_position_embeddings = 512;
  int64_t type_vocab_size = 2;
  double hidden_dropout = 0.1;     // of embeddings and sublayers' outputs
  double attention_dropout = 0.1;  // of the attention probabilities
  double initializer_range = 0.02;
};

/// Throws strobe::Error naming the known ones.
const VisionConfig& vision_config(std::string_view name);
const TextConfig& text_config(std::string_view name);

std::vector<std::string> vision_names();  // "RN50", "ViT-B-32", "ViT-B-16", ...
std::vector<std::string> text_names();    // "RBT3-chinese", "RoBERTa-wwm-ext-base-chinese", ...

}  // namespace strobe::clip
