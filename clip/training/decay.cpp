#include "clip/training/decay.h"

#include <torch/nn/module.h>

#include "clip/checkpoint/optimizer_state.h"

namespace strobe::clip {

std::vector<train::ParameterGroup> decay_groups(const torch::nn::Module& model, double weight_decay) {
  std::vector<train::ParameterGroup> groups = {{{}, 0.0}, {{}, weight_decay}};
  for (const auto& item : model.named_parameters()) {
    groups[has_weight_decay(item.key()) ? 1 : 0].parameters.emplace_back(item.key(), item.value());
  }
  return groups;
}

}  // namespace strobe::clip
