// Towers' weights to begin with instead of a checkpoint: OpenAI's CLIP for the images, BERT for the texts.
#pragma once

#include <filesystem>

#include "clip/checkpoint/load.h"
#include "train/value.h"

namespace torch::nn {
class Module;
}

namespace strobe::clip {

/// What the original takes of OpenAI's CLIP: the vision tower and the logit scale. Reads the archive as OpenAI
/// publishes it or a plain state dict. Throws CheckpointError naming the file, also where it has nothing of these.
train::Dict read_openai_weights(const std::filesystem::path& file);

/// The text tower of BERT's weights, with or without "bert." before their names, without the pooler and the heads.
/// Throws CheckpointError naming the file, also where it has nothing of these.
train::Dict read_bert_weights(const std::filesystem::path& file);

/// --clip-weight-path and --bert-weight-path: what the files hold goes into the model (position embeddings resized),
/// the rest stays as it is; either path may be empty. Throws CheckpointError.
LoadReport load_pretrained(torch::nn::Module& model, const std::filesystem::path& clip,
                           const std::filesystem::path& bert);

}  // namespace strobe::clip
