// A module whose parameters have given names and shapes, without the model that they are of.
#pragma once

#include <ATen/ops/zeros_like.h>
#include <torch/nn/module.h>

#include <memory>
#include <string>

#include "train/value.h"

namespace strobe::clip {

/// Float tensors become parameters, others buffers, of zeros; a dot in a name begins a child's.
inline std::shared_ptr<torch::nn::Module> nested_module(const train::Dict& tensors) {
  const auto root = std::make_shared<torch::nn::Module>();
  for (const auto& [key, value] : tensors) {
    std::string name = std::get<std::string>(key);
    torch::nn::Module* owner = root.get();
    for (std::size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.')) {
      const std::string child = name.substr(0, dot);
      const auto children = owner->named_children();
      const auto* known = children.find(child);
      owner =
          known != nullptr ? known->get() : owner->register_module(child, std::make_shared<torch::nn::Module>()).get();
      name.erase(0, dot + 1);
    }
    const at::Tensor zeros = at::zeros_like(value.as_tensor(), at::MemoryFormat::Contiguous);
    if (zeros.is_floating_point()) {
      owner->register_parameter(name, zeros);
    } else {
      owner->register_buffer(name, zeros);
    }
  }
  return root;
}

}  // namespace strobe::clip
