#include "bench/clip_workload.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <random>

#include "clip/image/transform.h"
#include "clip/model/config.h"
#include "strobe/types.h"
#include "train/checkpoint.h"

namespace strobe::bench {
namespace {

constexpr int64_t kContextLength = 52;
constexpr int64_t kShortest = 8, kLongest = 29;  // tokens, [CLS] and [SEP] included
constexpr int64_t kCls = 101, kSep = 102;
constexpr int64_t kFirstOrdinary = 106;  // of BERT's Chinese vocabulary

train::List to_list(const std::vector<int64_t>& values) { return {values.begin(), values.end()}; }

train::Dict to_dict(const clip::VisionConfig& config) {
  train::Dict dict;
  dict["embed_dim"] = config.embed_dim;
  dict["image_resolution"] = config.image_resolution;
  dict["layers"] = to_list(config.layers);
  dict["width"] = config.width;
  dict["patch_size"] = config.patch_size;
  dict["head_width"] = config.head_width;
  return dict;
}

train::Dict to_dict(const clip::TextConfig& config) {
  train::Dict dict;
  dict["vocab_size"] = config.vocab_size;
  dict["hidden_size"] = config.hidden_size;
  dict["num_hidden_layers"] = config.num_hidden_layers;
  dict["num_attention_heads"] = config.num_attention_heads;
  dict["intermediate_size"] = config.intermediate_size;
  dict["max_position_embeddings"] = config.max_position_embeddings;
  dict["type_vocab_size"] = config.type_vocab_size;
  dict["hidden_dropout"] = config.hidden_dropout;
  dict["attention_dropout"] = config.attention_dropout;
  dict["initializer_range"] = config.initializer_range;
  return dict;
}

/// The pixel values 0 and 255 after normalisation tell a channel's mean and deviation.
void add_normalisation(train::Dict& content) {
  at::Tensor extremes = at::zeros({2, 1, 1, 3}, at::kByte);
  extremes[1].fill_(255);
  const at::Tensor values = clip::normalize_images(extremes).to(at::kDouble).view({2, 3});
  train::List mean, deviation;
  for (int64_t channel = 0; channel < 3; ++channel) {
    const auto low = values[0][channel].item<double>(), high = values[1][channel].item<double>();
    deviation.emplace_back(1.0 / (high - low));
    mean.emplace_back(-low / (high - low));
  }
  content["mean"] = std::move(mean);
  content["std"] = std::move(deviation);
}

}  // namespace

const std::vector<ClipSize>& clip_sizes() {
  static const std::vector<ClipSize> sizes = {
      {"RN50", "RN50", "RBT3-chinese", 1200},
      {"ViT-B/16", "ViT-B-16", "RoBERTa-wwm-ext-base-chinese", 450},
      {"ViT-L/14", "ViT-L-14", "RoBERTa-wwm-ext-base-chinese", 128},
      {"ViT-L/14@336px", "ViT-L-14-336", "RoBERTa-wwm-ext-base-chinese", 40},
      {"ViT-H/14", "ViT-H-14", "RoBERTa-wwm-ext-large-chinese", 64},
      {"tiny", "ViT-mini-16-96", "BERT-mini-chinese", 8},
  };
  return sizes;
}

const ClipSize& clip_size(const std::string& name) {
  std::vector<std::string> names;
  for (const ClipSize& size : clip_sizes()) {
    if (size.name == name) return size;
    names.push_back(size.name);
  }
  throw Error(fmt::format("bench clip: size: expected one of {}, found {}", fmt::join(names, ", "), name));
}

ClipBatch clip_batch(const ClipSize& size, uint64_t seed, at::Device device) {
  const int64_t resolution = clip::vision_config(size.vision).image_resolution;
  std::mt19937_64 engine(seed);
  std::uniform_int_distribution<int64_t> length(kShortest, kLongest),
      piece(kFirstOrdinary, clip::text_config(size.text).vocab_size - 1);
  ClipBatch batch{at::empty({size.batch, resolution, resolution, 3}, at::kByte),
                  at::zeros({size.batch, kContextLength}, at::kLong), at::empty({size.batch}, at::kLong)};
  auto* pixels = batch.images.mutable_data_ptr<uint8_t>();
  for (int64_t i = 0; i < batch.images.numel(); ++i) pixels[i] = static_cast<uint8_t>(engine());
  for (int64_t i = 0; i < size.batch; ++i) {
    int64_t* ids = batch.ids.mutable_data_ptr<int64_t>() + i * kContextLength;
    const int64_t tokens = batch.lengths.mutable_data_ptr<int64_t>()[i] = length(engine);
    for (int64_t j = 1; j < tokens - 1; ++j) ids[j] = piece(engine);
    ids[0] = kCls;
    ids[tokens - 1] = kSep;
  }
  batch.images = batch.images.to(device);
  batch.ids = batch.ids.to(device);
  return batch;
}

void write_clip_workload(const std::filesystem::path& file, const ClipSize& size, const ClipBatch& batch,
                         const train::Dict& state, const ClipSettings& settings) {
  train::Dict content;
  content["vision"] = to_dict(clip::vision_config(size.vision));
  content["text"] = to_dict(clip::text_config(size.text));
  content["model"] = state;
  content["images"] = batch.images;
  content["ids"] = batch.ids;
  add_normalisation(content);
  content["precision"] = train::precision_name(settings.precision);
  content["lr"] = settings.lr;
  train::save_checkpoint(file, content);
}

}  // namespace strobe::bench
