#include "train/task.h"

#include <torch/nn/module.h>

namespace strobe::train {

std::vector<ParameterGroup> Task::parameter_groups(double weight_decay) {
  NamedTensors parameters;
  for (const auto& item : model().named_parameters()) parameters.emplace_back(item.key(), item.value());
  return decayed_matrices(parameters, weight_decay);
}

}  // namespace strobe::train
