// transformers' ChineseCLIPModel: the names of its weights.
#pragma once

#include "train/value.h"

namespace strobe::clip {

/// Whether weights have the names of ChineseCLIPModel.
bool is_hugging_face(const train::Dict& weights);

/// From Hugging Face's names to the original's: projections transposed, queries, keys and values of the vision tower
/// packed. Throws CheckpointError naming a weight that ChineseCLIPModel does not have.
train::Dict from_hugging_face(const train::Dict& weights);

/// The other way, each tensor contiguous. Throws CheckpointError for a ResNet, which ChineseCLIPModel has no place for,
/// and naming a weight that it does not have.
train::Dict to_hugging_face(const train::Dict& state);

}  // namespace strobe::clip
