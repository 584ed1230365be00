// The random decisions of Chinese-CLIP's --use-augment: timm's create_transform(scale=(0.9, 1),
// auto_augment="original", color_jitter=None). A decision is drawn apart from the pixels, so that it can be replayed
// elsewhere.
#pragma once

#include <array>
#include <cstdint>

#include "clip/image/image.h"

namespace strobe::clip {

/// One op of the drawn AutoAugment policy (Cubuk et al. 2019, arXiv 1805.09501).
struct OpDraw {
  bool apply = false;
  bool negate = false;  // of Rotate and ShearX
};

struct AugmentDraws {
  Box crop;  // of the original image
  bool flip = false;
  int policy = 0;  // below kNumPolicies
  std::array<OpDraw, 2> ops;
};

constexpr int kNumPolicies = 25;

/// The draws of one sample: a function of (seed, epoch, index) alone, whatever draws beside it.
/// Distributions as in timm: area 0.9 to 1 of the image, log-uniform aspect ratio 3/4 to 4/3, ten tries, then the
/// central crop; each op with its own probability.
AugmentDraws draw_augmentation(uint64_t seed, uint64_t epoch, uint64_t index, int width, int height);

/// The drawn policy's two ops on an RGB image, equal to Pillow's.
void auto_augment(Image& image, const AugmentDraws& draws);

}  // namespace strobe::clip
