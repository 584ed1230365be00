// What depends on the mode of an image: resizing, converting to RGB, flipping.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "clip/image/image.h"
#include "clip/image/resample.h"

namespace strobe::clip {
namespace {

/// a * b / 255, rounded.
uint8_t multiply(int a, int b) {
  const int product = a * b + 128;
  return static_cast<uint8_t>(((product >> 8) + product) >> 8);
}

bool has_alpha(ImageMode mode) { return mode == ImageMode::kGrayAlpha || mode == ImageMode::kRgba; }

/// `channels` are a pixel's, alpha being the last.
void premultiply(std::vector<uint8_t>& pixels, std::size_t channels) {
  for (std::size_t i = 0; i < pixels.size(); i += channels) {
    const uint8_t alpha = pixels[i + channels - 1];
    for (std::size_t c = 0; c + 1 < channels; ++c) pixels[i + c] = multiply(pixels[i + c], alpha);
  }
}

void unpremultiply(std::vector<uint8_t>& pixels, std::size_t channels) {
  for (std::size_t i = 0; i < pixels.size(); i += channels) {
    const int alpha = pixels[i + channels - 1];
    if (alpha == 0 || alpha == 255) continue;
    for (std::size_t c = 0; c + 1 < channels; ++c) {
      pixels[i + c] = static_cast<uint8_t>(std::min(255 * pixels[i + c] / alpha, 255));
    }
  }
}

Image crop(const Image& image, const Box& box) {
  Image out(image.mode, box.width, box.height);
  out.palette = image.palette;
  const std::size_t offset = static_cast<std::size_t>(box.left) * static_cast<std::size_t>(bytes_per_pixel(image.mode));
  for (int y = 0; y < box.height; ++y) std::memcpy(out.row(y), image.row(box.top + y) + offset, out.row_bytes());
  return out;
}

/// The input's pixel for each of the output's. The sums are what Pillow adds up, so that they round as there.
std::vector<int> nearest(int input_size, int output_size) {
  const double scale = static_cast<double>(input_size) / output_size;
  std::vector<int> indices;
  double center = scale * 0.5;
  for (int i = 0; i < output_size; ++i, center += scale) {
    indices.push_back(std::min(static_cast<int>(center), input_size - 1));
  }
  return indices;
}

Image resize_nearest(const Image& image, const Box& box, int width, int height) {
  Image out(image.mode, width, height);
  out.palette = image.palette;
  const std::vector<int> columns = nearest(box.width, width), rows = nearest(box.height, height);
  for (int y = 0; y < height; ++y) {
    const uint8_t* in = image.row(box.top + rows[static_cast<std::size_t>(y)]) + box.left;
    uint8_t* to = out.row(y);
    for (int x = 0; x < width; ++x) to[x] = in[columns[static_cast<std::size_t>(x)]];
  }
  return out;
}

internal::PixelView view_of(const Image& image, const Box& box) {
  const int channels = bytes_per_pixel(image.mode);
  return {image.row(box.top) + static_cast<std::size_t>(box.left) * static_cast<std::size_t>(channels),
          image.row_bytes(), box.width, box.height, channels};
}

void check_box(const Image& image, const Box& box, int width, int height) {
  if (box.left < 0 || box.top < 0 || box.width < 1 || box.height < 1 || box.width > image.width - box.left ||
      box.height > image.height - box.top || width < 1 || height < 1) {
    throw ImageError(
        fmt::format("resize: the box ({}, {}, {} x {}) does not lie in an image of {} x {}, or {} x {} is "
                    "no size",
                    box.left, box.top, box.width, box.height, image.width, image.height, width, height));
  }
}

/// A pixel of `in` becomes three bytes at `out`.
using PixelToRgb = void (*)(const uint8_t* in, const uint8_t* palette, uint8_t* out);

void gray_to_rgb(const uint8_t* in, const uint8_t*, uint8_t* out) { std::memset(out, in[0], 3); }
void palette_to_rgb(const uint8_t* in, const uint8_t* palette, uint8_t* out) { std::memcpy(out, palette + 3 * *in, 3); }
void rgba_to_rgb(const uint8_t* in, const uint8_t*, uint8_t* out) { std::memcpy(out, in, 3); }

void cmyk_to_rgb(const uint8_t* in, const uint8_t*, uint8_t* out) {
  const int light = 255 - in[3];
  for (int c = 0; c < 3; ++c) out[c] = static_cast<uint8_t>(std::max(light - multiply(in[c], light), 0));
}

void gray16_to_rgb(const uint8_t* in, const uint8_t*, uint8_t* out) {
  uint16_t value;
  std::memcpy(&value, in, 2);
  std::memset(out, std::min<int>(value, 255), 3);
}

template <PixelToRgb kConvert>
Image convert(const Image& image) {
  Image out(ImageMode::kRgb, image.width, image.height);
  const auto step = static_cast<std::size_t>(bytes_per_pixel(image.mode));
  const uint8_t* in = image.pixels.data();
  for (std::size_t i = 0; i < out.pixels.size(); i += 3, in += step) {
    kConvert(in, image.palette.data(), &out.pixels[i]);
  }
  return out;
}

}  // namespace

Image resize(const Image& image, const Box& box, int width, int height) {
  check_box(image, box, width, height);
  if (box.width == width && box.height == height) return crop(image, box);
  if (image.mode == ImageMode::kBilevel || image.mode == ImageMode::kPalette) {
    return resize_nearest(image, box, width, height);
  }
  Image out;
  out.mode = image.mode;
  out.width = width;
  out.height = height;
  if (image.mode == ImageMode::kGray16) {
    out.pixels = internal::resample_16bit(view_of(image, box), width, height);
  } else if (has_alpha(image.mode)) {
    const auto channels = static_cast<std::size_t>(bytes_per_pixel(image.mode));
    Image part = crop(image, box);
    premultiply(part.pixels, channels);
    out.pixels = internal::resample_8bit(view_of(part, {0, 0, box.width, box.height}), width, height);
    unpremultiply(out.pixels, channels);
  } else {
    out.pixels = internal::resample_8bit(view_of(image, box), width, height);
  }
  return out;
}

Image to_rgb(Image image) {
  switch (image.mode) {
    case ImageMode::kRgb:
      return image;
    case ImageMode::kBilevel:
    case ImageMode::kGray:
    case ImageMode::kGrayAlpha:
      return convert<gray_to_rgb>(image);
    case ImageMode::kPalette:
      return convert<palette_to_rgb>(image);
    case ImageMode::kRgba:
      return convert<rgba_to_rgb>(image);
    case ImageMode::kCmyk:
      return convert<cmyk_to_rgb>(image);
    case ImageMode::kGray16:
      return convert<gray16_to_rgb>(image);
  }
  return image;
}

void flip_horizontally(Image& image) {
  const auto step = static_cast<std::size_t>(bytes_per_pixel(image.mode));
  for (int y = 0; y < image.height; ++y) {
    uint8_t *left = image.row(y), *right = left + image.row_bytes() - step;
    for (; left < right; left += step, right -= step) std::swap_ranges(left, left + step, right);
  }
}

}  // namespace strobe::clip
