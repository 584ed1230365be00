// Folders of transformers' ChineseCLIPModel.
#pragma once

#include <filesystem>

#include "train/value.h"

namespace strobe::clip {

/// The weights as the folder names them: of model.safetensors, of the parts that model.safetensors.index.json lists, or
/// of pytorch_model.bin. Throws CheckpointError naming the file.
train::Dict read_hugging_face(const std::filesystem::path& folder);

/// A folder that ChineseCLIPModel.from_pretrained(folder) loads: config.json, preprocessor_config.json and
/// model.safetensors in fp32, each written whole or not at all, the weights last. `state` has bare names. Throws
/// CheckpointError.
void write_hugging_face(const std::filesystem::path& folder, const train::Dict& state);

}  // namespace strobe::clip
