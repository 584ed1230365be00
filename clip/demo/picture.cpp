#include "clip/demo/picture.h"

#include <png.h>

#include <algorithm>

namespace strobe::clip {
namespace {

constexpr int kChannels = 3;
constexpr int kOpaque = 255;

void check_inside(const char* what, const Image& picture, int x, int y, int width, int height) {
  if (x < 0 || y < 0 || x + width > picture.width || y + height > picture.height) {
    throw Error(std::string(what) + ": expected to lie inside the picture");
  }
}

uint8_t* pixel_at(Image& picture, int x, int y) { return picture.row(y) + kChannels * x; }

void check(bool done, const png_image& image) {
  if (!done) throw Error(std::string("encode_png: ") + image.message);
}

}  // namespace

Image blank_picture(int width, int height, Rgb color) {
  Image picture(ImageMode::kRgb, width, height);
  for (std::size_t i = 0; i < picture.pixels.size(); ++i) picture.pixels[i] = color[i % kChannels];
  return picture;
}

void draw(Image& picture, const Glyph& glyph, int x, int y) {
  check_inside("draw: glyph", picture, x, y, glyph.width, glyph.height);
  const uint8_t* source = glyph.pixels.data();
  for (int row = 0; row < glyph.height; ++row) {
    uint8_t* target = pixel_at(picture, x, y + row);
    for (int column = 0; column < glyph.width; ++column, source += kChannels + 1, target += kChannels) {
      const int under = kOpaque - source[kChannels];
      for (int channel = 0; channel < kChannels; ++channel) {
        const int behind = (under * target[channel] + kOpaque / 2) / kOpaque;
        target[channel] = static_cast<uint8_t>(std::min(kOpaque, source[channel] + behind));
      }
    }
  }
}

void paste(Image& picture, const Image& part, int x, int y) {
  check_inside("paste: part", picture, x, y, part.width, part.height);
  for (int row = 0; row < part.height; ++row) {
    std::copy_n(part.row(row), part.row_bytes(), pixel_at(picture, x, y + row));
  }
}

std::string encode_png(const Image& picture) {
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
