// Weights into a model.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "train/value.h"

namespace torch::nn {
class Module;
}

namespace strobe::clip {

struct LoadOptions {
  bool strict = true;  // names that are missing or unexpected are an error
};

/// What happened besides; names only where the load was not strict.
struct LoadReport {
  std::vector<std::string> missing;     // of the model, and not in the state
  std::vector<std::string> unexpected;  // in the state, and not of the model
  bool resized = false;                 // the position embeddings
};

/// Copies the tensors of `state` (bare names, any float dtype) into the parameters and buffers of the same name.
/// A ViT's position embeddings of another grid are resized: the class token's row kept, the grid by bicubic
/// interpolation with aligned corners in fp32. Throws CheckpointError listing what is missing or unexpected (strict)
/// and what has another shape (always); then nothing has been changed.
LoadReport load_clip_weights(torch::nn::Module& model, const train::Dict& state, const LoadOptions& options = {});

/// [1 + g * g, width] of any float dtype to [1 + grid * grid, width] fp32. Throws CheckpointError where there is no
/// square grid.
at::Tensor resize_position_embedding(const at::Tensor& embedding, int64_t grid);

}  // namespace strobe::clip
