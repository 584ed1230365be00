// Which parameters of a CLIP decay.
#pragma once

#include <vector>

#include "train/optimizer.h"

namespace torch::nn {
class Module;
}

namespace strobe::clip {

/// The original's two groups: first what does not decay (has_weight_decay in clip/checkpoint/optimizer_state.h), then
/// the rest, each in the order of named_parameters().
std::vector<train::ParameterGroup> decay_groups(const torch::nn::Module& model, double weight_decay);

}  // namespace strobe::clip
