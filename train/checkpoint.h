// Checkpoint files that Python's torch.load(weights_only=True) reads, and the weights of a module as a dict.
#pragma once

#include <filesystem>
#include <string>

#include "train/pickle.h"
#include "train/value.h"

namespace torch::nn {
class Module;
}

namespace strobe::train {

/// Writes to a temporary file in the same folder, syncs it and renames it over `file`: whoever reads `file` finds the
/// old or the new one, whole. Tensors on other devices are stored as the CPU's. Throws CheckpointError naming the file.
void save_checkpoint(const std::filesystem::path& file, const Dict& content);

/// Reads what save_checkpoint or Python's torch.save wrote; the tensors are on the CPU and map the file, so that a
/// large one costs address space and not memory (writing to them does not change it). Only plain values and tensors are
/// made: a pickle that names anything else is refused by that name (Objects in pickle.h says what else can be read),
/// nothing in it is ever executed. Throws CheckpointError naming the file and what is wrong with it.
Dict load_checkpoint(const std::filesystem::path& file, Objects objects = Objects::kRefused);

/// The named parameters and buffers of a module: the tensors themselves, not copies.
Dict module_state(const torch::nn::Module& module);

/// Copies the tensors of `state` into the module's. Throws CheckpointError listing the names that are missing,
/// unexpected or of another shape; then nothing has been changed.
void load_module_state(torch::nn::Module& module, const Dict& state);

}  // namespace strobe::train
