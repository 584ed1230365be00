// Towers' weights to begin with instead of a checkpoint (--clip-weight-path, --bert-weight-path): OpenAI's CLIP for the
// images, BERT for the texts. What they have goes into a model by a load that is not strict.
#pragma once

#include <filesystem>

#include "train/value.h"

namespace strobe::clip {

/// What the original takes of OpenAI's CLIP: the vision tower and the logit scale. Reads the archive as OpenAI
/// publishes it or a plain state dict. Throws CheckpointError naming the file, also where it has nothing of these.
train::Dict read_openai_weights(const std::filesystem::path& file);

/// The text tower of BERT's weights, with or without "bert." before their names, without the pooler and the heads.
/// Throws CheckpointError naming the file, also where it has nothing of these.
train::Dict read_bert_weights(const std::filesystem::path& file);

}  // namespace strobe::clip
