// From a decoded image to the pixels that the image tower sees.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "clip/image/augment.h"
#include "clip/image/image.h"

namespace strobe::clip {

/// Squashed to resolution x resolution (no cropping, the aspect is lost), then RGB: evaluation, and training without
/// augmentation. Writes [resolution, resolution, 3].
void transform_image(const Image& image, int resolution, uint8_t* out);

/// The training's: random crop, flip, RGB, AutoAugment, as drawn. Writes [resolution, resolution, 3].
void augment_image(const Image& image, const AugmentDraws& draws, int resolution, uint8_t* out);

/// (x / 255 - mean) / std of each channel in fp32, operation by operation as torchvision's ToTensor and Normalize, on
/// whichever device the images are: uint8 [B, R, R, 3] becomes float [B, 3, R, R] in the memory format asked for.
at::Tensor normalize_images(const at::Tensor& images, at::MemoryFormat format = at::MemoryFormat::Contiguous);

}  // namespace strobe::clip
