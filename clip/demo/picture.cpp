#include "clip/demo/picture.h"

#include <png.h>

#include <algorithm>

#include "strobe/types.h"

namespace strobe::clip {
namespace {

constexpr int kOpaque = 255;

void check(bool done, const png_image& image) {
  if (!done) throw Error(std::string("encode_png: ") + image.message);
}

}  // namespace

Picture::Picture(int64_t width, int64_t height, Rgb background)
    : width(width), height(height), pixels(static_cast<std::size_t>(3 * width * height)) {
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = background[i % 3];
}

void draw(Picture& picture, const Glyph& glyph, int64_t x, int64_t y) {
  if (x < 0 || y < 0 || x + glyph.width > picture.width || y + glyph.height > picture.height) {
    throw Error("draw: glyph: expected to lie inside the picture");
  }
  const uint8_t* source = glyph.pixels.data();
  for (int64_t row = 0; row < glyph.height; ++row) {
    uint8_t* target = picture.at(x, y + row);
    for (int64_t column = 0; column < glyph.width; ++column, source += 4, target += 3) {
      const int under = kOpaque - source[3];
      for (int channel = 0; channel < 3; ++channel) {
        const int behind = (under * target[channel] + kOpaque / 2) / kOpaque;
        target[channel] = static_cast<uint8_t>(std::min(kOpaque, source[channel] + behind));
      }
    }
  }
}

std::string encode_png(const Picture& picture) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(picture.width);
  image.height = static_cast<png_uint_32>(picture.height);
  image.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
  std::string bytes(size, '\0');
  check(png_image_write_to_memory(&image, bytes.data(), &size, /*convert_to_8_bit=*/0, picture.pixels.data(),
                                  /*row_stride=*/0, /*colormap=*/nullptr),
        image);
  bytes.resize(size);
  return bytes;
}

}  // namespace strobe::clip
