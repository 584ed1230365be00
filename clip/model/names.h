// Parameters keep the names of the original's state dict, which follow its modules, not ours.
#pragma once

#include <torch/nn/module.h>

#include <memory>
#include <string>

namespace strobe::clip {

/// A child that only lends its name to what is registered below it.
inline std::shared_ptr<torch::nn::Module> name_scope(torch::nn::Module& parent, const std::string& name) {
  return parent.register_module(name, std::make_shared<torch::nn::Module>());
}

}  // namespace strobe::clip
