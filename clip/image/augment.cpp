#include "clip/image/augment.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "clip/image/affine.h"
#include "clip/image/color_ops.h"

namespace strobe::clip {
namespace {

enum class Op {
  kAutoContrast,
  kColor,
  kContrast,
  kEqualize,
  kInvert,
  kPosterize,
  kRotate,
  kSharpness,
  kShearX,
  kSolarize
};

struct PolicyOp {
  Op op;
  double probability;
  int level;  // of 10
};

/// timm's auto_augment_policy_original: the ImageNet policy of AutoAugment, table 9 of its appendix.
constexpr PolicyOp kPolicies[kNumPolicies][2] = {
    {{Op::kPosterize, 0.4, 8}, {Op::kRotate, 0.6, 9}},  {{Op::kSolarize, 0.6, 5}, {Op::kAutoContrast, 0.6, 5}},
    {{Op::kEqualize, 0.8, 8}, {Op::kEqualize, 0.6, 3}}, {{Op::kPosterize, 0.6, 7}, {Op::kPosterize, 0.6, 6}},
    {{Op::kEqualize, 0.4, 7}, {Op::kSolarize, 0.2, 4}}, {{Op::kEqualize, 0.4, 4}, {Op::kRotate, 0.8, 8}},
    {{Op::kSolarize, 0.6, 3}, {Op::kEqualize, 0.6, 7}}, {{Op::kPosterize, 0.8, 5}, {Op::kEqualize, 1.0, 2}},
    {{Op::kRotate, 0.2, 3}, {Op::kSolarize, 0.6, 8}},   {{Op::kEqualize, 0.6, 8}, {Op::kPosterize, 0.4, 6}},
    {{Op::kRotate, 0.8, 8}, {Op::kColor, 0.4, 0}},      {{Op::kRotate, 0.4, 9}, {Op::kEqualize, 0.6, 2}},
    {{Op::kEqualize, 0.0, 7}, {Op::kEqualize, 0.8, 8}}, {{Op::kInvert, 0.6, 4}, {Op::kEqualize, 1.0, 8}},
    {{Op::kColor, 0.6, 4}, {Op::kContrast, 1.0, 8}},    {{Op::kRotate, 0.8, 8}, {Op::kColor, 1.0, 2}},
    {{Op::kColor, 0.8, 8}, {Op::kSolarize, 0.8, 7}},    {{Op::kSharpness, 0.4, 7}, {Op::kInvert, 0.6, 8}},
    {{Op::kShearX, 0.6, 5}, {Op::kEqualize, 1.0, 9}},   {{Op::kColor, 0.4, 0}, {Op::kEqualize, 0.6, 3}},
    {{Op::kEqualize, 0.4, 7}, {Op::kSolarize, 0.2, 4}}, {{Op::kSolarize, 0.6, 5}, {Op::kAutoContrast, 0.6, 5}},
    {{Op::kInvert, 0.6, 4}, {Op::kEqualize, 1.0, 8}},   {{Op::kColor, 0.6, 4}, {Op::kContrast, 1.0, 8}},
    {{Op::kEqualize, 0.8, 8}, {Op::kEqualize, 0.6, 3}},
};

/// The mean of CLIP's training images.
constexpr std::array<uint8_t, 3> kFill = {123, 117, 104};

/// SplitMix64 (Steele, Lea and Flood 2014): any start gives a good stream, so each sample gets its own.
class Random {
 public:
  Random(uint64_t seed, uint64_t epoch, uint64_t index) : state_(seed) {
    state_ = next() ^ epoch;
    state_ = next() ^ index;
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }  // below 1
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  int below(int count) { return static_cast<int>(uniform() * count); }

 private:
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t z = state_;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  uint64_t state_;
};

constexpr double kMinArea = 0.9, kMaxArea = 1.0, kMinAspect = 3.0 / 4.0, kMaxAspect = 4.0 / 3.0;

Box central_crop(int width, int height) {
  const double aspect = static_cast<double>(width) / height;
  Box box{0, 0, width, height};
  // Rounded, a very thin image would have no pixel left.
  if (aspect < kMinAspect) box.height = std::max(static_cast<int>(std::nearbyint(width / kMinAspect)), 1);
  if (aspect > kMaxAspect) box.width = std::max(static_cast<int>(std::nearbyint(height * kMaxAspect)), 1);
  box.left = (width - box.width) / 2;
  box.top = (height - box.height) / 2;
  return box;
}

Box draw_crop(Random& random, int width, int height) {
  const double area = static_cast<double>(width) * height;
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double target = random.uniform(kMinArea, kMaxArea) * area;
    const double aspect = std::exp(random.uniform(std::log(kMinAspect), std::log(kMaxAspect)));
    Box box;
    box.width = static_cast<int>(std::nearbyint(std::sqrt(target * aspect)));
    box.height = static_cast<int>(std::nearbyint(std::sqrt(target / aspect)));
    if (box.width < 1 || box.height < 1 || box.width > width || box.height > height) continue;
    box.top = random.below(height - box.height + 1);
    box.left = random.below(width - box.width + 1);
    return box;
  }
  return central_crop(width, height);
}

void apply(Image& image, Op op, int level, bool negate) {
  const double share = level / 10.0, sign = negate ? -1.0 : 1.0;
  const double factor = share * 1.8 + 0.1;  // of an enhancement; 1 changes nothing
  switch (op) {
    case Op::kAutoContrast:
      return internal::auto_contrast(image);
    case Op::kColor:
      return internal::adjust_color(image, factor);
    case Op::kContrast:
      return internal::adjust_contrast(image, factor);
    case Op::kEqualize:
      return internal::equalize(image);
    case Op::kInvert:
      return internal::invert(image);
    case Op::kPosterize:
      return internal::posterize(image, static_cast<int>(share * 4) + 4);
    case Op::kRotate: {
      const auto matrix = internal::rotation(sign * (share * 30.0), image.width, image.height);
      image = internal::transform_affine(image, matrix, kFill);
      return;
    }
    case Op::kSharpness:
      return internal::adjust_sharpness(image, factor);
    case Op::kShearX:
      image = internal::transform_affine(image, {1, sign * (share * 0.3), 0, 0, 1, 0}, kFill);
      return;
    case Op::kSolarize:
      return internal::solarize(image, std::min(256, static_cast<int>(share * 256)));
  }
}

}  // namespace

AugmentDraws draw_augmentation(uint64_t seed, uint64_t epoch, uint64_t index, int width, int height) {
  Random random(seed, epoch, index);
  AugmentDraws draws;
  draws.flip = random.uniform() < 0.5;
  draws.policy = random.below(kNumPolicies);
  for (std::size_t i = 0; i < 2; ++i) {
    draws.ops[i].apply = random.uniform() < kPolicies[draws.policy][i].probability;
    draws.ops[i].negate = random.uniform() < 0.5;
  }
  draws.crop = draw_crop(random, width, height);
  return draws;
}

void auto_augment(Image& image, const AugmentDraws& draws) {
  if (image.mode != ImageMode::kRgb || draws.policy < 0 || draws.policy >= kNumPolicies) {
    throw ImageError("auto_augment: expected an RGB image and a policy below 25");
  }
  for (std::size_t i = 0; i < 2; ++i) {
    const PolicyOp& op = kPolicies[draws.policy][i];
    if (draws.ops[i].apply) apply(image, op.op, op.level, draws.ops[i].negate);
  }
}

}  // namespace strobe::clip
