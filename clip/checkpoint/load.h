// Weights into a model, and which model weights are of.
#pragma once

#include <string>
#include <vector>

#include "clip/model/config.h"
#include "train/value.h"

namespace torch::nn {
class Module;
}

namespace strobe::clip {

struct LoadOptions {
  bool strict = true;  // names that are missing or unexpected are an error
};

/// What a load that is not strict passed over.
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

/// [1 + g*g, width] to [1 + grid*grid, width]. Throws CheckpointError where there is no square grid.
at::Tensor resize_position_embedding(const at::Tensor& embedding, int64_t grid);

/// Which towers a state belongs to, by its shapes; `name` is the configuration's where there is one of these sizes,
/// else "". A head width that shapes do not tell is taken as the original's: 80 where the width is 1280, else 64.
struct Towers {
  VisionConfig vision;
  TextConfig text;
  std::string describe() const;  // "ViT-B-16 with RoBERTa-wwm-ext-base-chinese"
};

/// Throws CheckpointError where the names are not those of a whole CLIP.
Towers infer_towers(const train::Dict& state);

/// Throws CheckpointError saying what the state is and what was asked for ("this is ViT-L-14, --vision-model says
/// ViT-B-16") where a tower has other sizes. Another image resolution is no difference: load_clip_weights resizes.
void check_towers(const train::Dict& state, const VisionConfig& vision, const TextConfig& text);

}  // namespace strobe::clip
