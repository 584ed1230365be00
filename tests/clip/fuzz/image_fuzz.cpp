// Any bytes are an image or an ImageError, and an image can be resized and augmented.
#include <string_view>
#include <utility>

#include "clip/image/augment.h"
#include "clip/image/image.h"
#include "target.h"

namespace {

constexpr int64_t kMaxPixels = 1 << 20;  // a large picture is slow, not wrong
constexpr int kSide = 16;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace strobe::clip;
  try {
    const Image image = decode_image({reinterpret_cast<const char*>(data), size});
    if (int64_t{image.width} * image.height > kMaxPixels) return 0;
    to_rgb(resize(image, {0, 0, image.width, image.height}, kSide, kSide));
    const AugmentDraws draws = draw_augmentation(1, 2, size, image.width, image.height);
    Image crop = resize(image, draws.crop, kSide, kSide);
    flip_horizontally(crop);
    crop = to_rgb(std::move(crop));
    auto_augment(crop, draws);
  } catch (const ImageError&) {
  }
  return 0;
}
