// Safetensors (github.com/huggingface/safetensors, format of 0.4): a JSON header and the tensors' bytes.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "train/value.h"

namespace strobe::clip {

/// {name: tensor} in the order of the bytes; the tensors map the file. The header is checked whole: lengths, dtypes,
/// shapes, every tensor inside the data, no overlap, no hole. Throws CheckpointError naming the file and the tensor.
train::Dict read_safetensors(const std::filesystem::path& file);

/// Writes atomically, sorted as the format's own writer sorts (wider dtypes first, then by name). Throws
/// CheckpointError.
void write_safetensors(const std::filesystem::path& file, const train::Dict& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace strobe::clip
