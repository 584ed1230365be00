// Checkpoints of Chinese-CLIP: read from the forms that its users have, written in the original's (cn_clip 1.6.0,
// training/main.py).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "train/value.h"

namespace strobe::clip {

/// What a file holds, under one set of names whatever the file's form.
struct ClipCheckpoint {
  int64_t epoch = 0;  // epochs that are done
  int64_t step = 0;   // updates that are done
  std::string name;   // of the run

  /// {bare name ("visual.conv1.weight", "bert.embeddings...", no "module."): tensor}, in the file's dtypes; the layout
  /// that does not depend on the attention ("attn.in_proj_weight", "attention.self.query.weight"). Never holds
  /// "bert.pooler". May map the file: loading copies.
  train::Dict state;

  /// torch.optim.AdamW's state_dict with the original's two groups (optimizer_state.h), each with "param_names", the
  /// bare names in the order of "params". Absent where the file has none.
  std::optional<train::Dict> optimizer;

  /// The other keys of the file, which the original passes over: what a run needs besides to go on exactly.
  train::Dict extra;
};

/// Reads the original's `.pt`; a plain state dict (OpenAI's CLIP, BERT's weights); OpenAI's TorchScript archive; a
/// `.safetensors` file or a folder of Hugging Face's ChineseCLIPModel. Nothing in a file is ever executed. The tensors
/// are on the CPU and map the file as far as they can: a large checkpoint costs address space, not memory. Throws
/// CheckpointError naming the file and what is wrong with it.
ClipCheckpoint read_clip_checkpoint(const std::filesystem::path& file);

/// The same without the optimizer's state, for who only wants to use the model: one that cannot be understood is no
/// error.
ClipCheckpoint read_clip_weights(const std::filesystem::path& file);

/// Writes the original's form, atomically: {"epoch", "step", "name", "state_dict": OrderedDict with the prefix
/// "module.", "optimizer", and what `extra` holds}. `optimizer` may be any torch-like state_dict whose groups have
/// "param_names"; it is written in the original's two groups. Python's torch.load(weights_only=True) reads the file.
/// Throws CheckpointError naming the file.
void write_clip_checkpoint(const std::filesystem::path& file, const ClipCheckpoint& content);

}  // namespace strobe::clip
