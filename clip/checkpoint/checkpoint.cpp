#include "clip/checkpoint/checkpoint.h"

#include <algorithm>
#include <utility>

#include "clip/checkpoint/hugging_face.h"
#include "clip/checkpoint/hugging_face_folder.h"
#include "clip/checkpoint/optimizer_state.h"
#include "clip/checkpoint/safetensors.h"
#include "clip/checkpoint/state.h"
#include "train/checkpoint.h"

namespace strobe::clip {
namespace {

namespace fs = std::filesystem;

using train::CheckpointError;
using train::Dict;
using train::Value;

constexpr const char* kPrefix = "module.";
constexpr const char* kKeys[] = {"epoch", "step", "name", "state_dict", "optimizer"};

template <typename Work>
auto naming(const fs::path& file, const Work& work) {
  try {
    return work();
  } catch (const CheckpointError& error) {
    const std::string text = error.what();
    if (text.find(file.string()) != std::string::npos) throw;
    throw CheckpointError("checkpoint " + file.string() + ": " + text);
  }
}

/// Whatever names the tensors had.
Dict bare_state(const Dict& tensors) {
  return is_hugging_face(tensors) ? from_hugging_face(tensors) : normalise_state(tensors);
}

ClipCheckpoint plain(const Dict& tensors) {
  ClipCheckpoint content;
  content.state = bare_state(tensors);
  return content;
}

ClipCheckpoint from_original(const Dict& root) {
  ClipCheckpoint content;
  content.state = bare_state(root.at("state_dict").as_dict());
  if (const Value* epoch = root.find("epoch")) content.epoch = epoch->as_int();
  if (const Value* step = root.find("step")) content.step = step->as_int();
  if (const Value* name = root.find("name")) content.name = name->as_string();
  for (const auto& [key, value] : root) {
    const auto* text = std::get_if<std::string>(&key);
    const bool is_known = text != nullptr && std::find(std::begin(kKeys), std::end(kKeys), *text) != std::end(kKeys);
    if (!is_known) content.extra[key] = value;
  }
  return content;
}

/// The state, and the optimizer's as the file has it.
std::pair<ClipCheckpoint, Value> read(const fs::path& file) {
  if (fs::is_directory(file)) return {plain(read_hugging_face(file)), Value()};
  if (file.extension() == ".safetensors") return {plain(read_safetensors(file)), Value()};
  const Dict root = train::load_checkpoint(file, train::Objects::kOpaque);
  if (!root.contains("state_dict")) return {plain(flatten_modules(root)), Value()};
  const Value* optimizer = root.find("optimizer");
  return {from_original(root), optimizer == nullptr ? Value() : *optimizer};
}

}  // namespace

ClipCheckpoint read_clip_weights(const fs::path& file) {
  return naming(file, [&] { return read(file).first; });
}

ClipCheckpoint read_clip_checkpoint(const fs::path& file) {
  return naming(file, [&] {
    auto [content, optimizer] = read(file);
    if (!optimizer.is_none() && optimizer.as_dict().size() > 0) {
      content.optimizer = normalise_optimizer(optimizer.as_dict(), content.state);
    }
    return content;
  });
}

void write_clip_checkpoint(const fs::path& file, const ClipCheckpoint& content) {
  naming(file, [&] {
    Dict root, state;
    root["epoch"] = content.epoch;
    root["step"] = content.step;
    root["name"] = content.name;
    state.mark_ordered();
    for (const auto& [key, value] : content.state) state[kPrefix + std::get<std::string>(key)] = value;
    if (content.optimizer) root["optimizer"] = normalise_optimizer(*content.optimizer, content.state);
    root["state_dict"] = std::move(state);
    for (const auto& [key, value] : content.extra) {
      if (root.contains(key)) throw CheckpointError("the key \"" + std::get<std::string>(key) + "\" is taken");
      root[key] = value;
    }
    train::save_checkpoint(file, root);
  });
}

}  // namespace strobe::clip
