// transformers' ChineseCLIPModel: its weights' names, its config.json, its folder.
#pragma once

#include <filesystem>

#include "clip/checkpoint/checkpoint.h"
#include "clip/checkpoint/load.h"

namespace strobe::clip {

/// From Hugging Face's names to the original's: projections transposed, queries, keys and values of the vision tower
/// packed. Throws CheckpointError listing names that it does not know.
train::Dict from_hugging_face(const train::Dict& weights);

/// The other way. Throws CheckpointError for a ResNet, which Hugging Face's model has no place for.
train::Dict to_hugging_face(const train::Dict& state);

/// A folder that ChineseCLIPModel.from_pretrained(folder) loads: config.json, preprocessor_config.json and
/// model.safetensors in fp32. Each file is written whole or not at all, the weights last.
void write_hugging_face(const std::filesystem::path& folder, const train::Dict& state);

}  // namespace strobe::clip
