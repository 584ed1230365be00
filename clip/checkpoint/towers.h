// Which model weights are of.
#pragma once

#include <string>

#include "clip/model/config.h"
#include "train/value.h"

namespace strobe::clip {

/// `name` is a configuration's where there is one of these sizes, else "".
struct Towers {
  VisionConfig vision;
  TextConfig text;
};

/// By the shapes of a state with bare names. The width of a head, which they do not tell, is taken as the original's:
/// 80 in a ViT of width 1280, else 64. Throws CheckpointError naming a weight that a CLIP has and the state has not, or
/// whose shape no CLIP has.
Towers infer_towers(const train::Dict& state);

/// "ViT-B-16 with RoBERTa-wwm-ext-base-chinese", or the sizes of what has no name.
std::string describe(const Towers& towers);

/// Throws CheckpointError saying what the weights are of and what was asked for, where a tower has other sizes. Another
/// image resolution of a ViT is no difference: load_clip_weights resizes.
void check_towers(const train::Dict& state, const VisionConfig& vision, const TextConfig& text);

}  // namespace strobe::clip
