// What Clip asks of an image encoder.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

namespace strobe::clip {

class VisionTower : public torch::nn::Module {
 public:
  /// images [B, 3, R, R] -> [B, embed_dim], not normalised. `mask_ratio`: see VisionTransformer.
  virtual at::Tensor forward(const at::Tensor& images, double mask_ratio) = 0;
};

}  // namespace strobe::clip
