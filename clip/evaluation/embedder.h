// A trained model at work: from pixels and tokens to features.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>

#include "clip/model/clip.h"
#include "train/precision.h"

namespace strobe::clip {

/// What a checkpoint holds, in evaluation mode on the CPU. A name that is "" is the checkpoint's own; others must fit
/// it. Throws CheckpointError.
Clip load_clip(const std::filesystem::path& checkpoint, const std::string& vision_model, const std::string& text_model,
               const ClipOptions& options);

class Embedder {
 public:
  /// `precision`: other than kFp32 it computes under autocast.
  Embedder(Clip model, at::Device device, train::Precision precision);

  /// Both: fp32 [n, embed_dim] on the device, each row of length 1, without gradients.
  at::Tensor texts(const at::Tensor& ids);      // int64 [n, L] on the CPU, right-padded with 0
  at::Tensor images(const at::Tensor& pixels);  // uint8 [n, R, R, 3]

  const Clip& model() const { return model_; }
  at::Device device() const { return device_; }
  int64_t resolution() const { return model_->vision_config().image_resolution; }

 private:
  Clip model_;
  at::Device device_;
  train::Precision precision_;
};

}  // namespace strobe::clip
