#include "clip/checkpoint/pretrained.h"

#include <string>

#include "clip/checkpoint/checkpoint.h"

namespace strobe::clip {
namespace {

namespace fs = std::filesystem;

using train::Dict;

constexpr const char* kWords = "embeddings.word_embeddings.weight";

template <typename Predicate>
Dict select(const Dict& state, const Predicate& is_wanted) {
  Dict selected;
  for (const auto& [key, value] : state) {
    if (is_wanted(std::get<std::string>(key))) selected[key] = value;
  }
  return selected;
}

Dict not_empty(Dict state, const fs::path& file, const char* what) {
  if (state.size() > 0) return state;
  throw train::CheckpointError("checkpoint " + file.string() + ": expected " + what + ", found none of its weights");
}

}  // namespace

Dict read_openai_weights(const fs::path& file) {
  const Dict state = read_clip_weights(file).state;
  return not_empty(
      select(state, [](const std::string& name) { return name.starts_with("visual.") || name == "logit_scale"; }), file,
      "OpenAI's CLIP");
}

Dict read_bert_weights(const fs::path& file) {
  Dict state = read_clip_weights(file).state;
  if (state.contains(kWords)) {  // saved without the heads, so without the prefix
    Dict prefixed;
    for (const auto& [key, value] : state) prefixed["bert." + std::get<std::string>(key)] = value;
    state = std::move(prefixed);
  }
  const auto is_wanted = [](const std::string& name) {
    return name.starts_with("bert.") && !name.starts_with("bert.pooler.") && !name.ends_with(".position_ids");
  };
  return not_empty(select(state, is_wanted), file, "BERT");
}

}  // namespace strobe::clip
