// The images of an ImageFolder as batches of pixels, prepared by threads ahead of the consumer.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "clip/evaluation/image_folder.h"

namespace strobe::clip {

struct LabelledBatch {
  at::Tensor images;                 // uint8 [B, R, R, 3]
  std::vector<int64_t> labels;       // [B]
  std::vector<std::string> errors;   // [B]: "", or why the image is black
  std::vector<LabelledImage> files;  // [B]
};

/// RGB first and then the squash to R x R, as torchvision's loader and the original's transform do it, so pictures with
/// a palette or transparency come out otherwise than from LMDB.
class LabelledImageLoader {
 public:
  struct Options {
    int resolution = 224;
    int64_t batch_size = 64;
    int workers = 4;
  };
  LabelledImageLoader(const ImageFolder& folder, const Options& options);
  ~LabelledImageLoader();

  std::optional<LabelledBatch> next();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace strobe::clip
