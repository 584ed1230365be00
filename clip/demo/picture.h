// Drawing and PNG files: what the built-in data set and picture sheets are made with. Pictures are of ImageMode::kRgb.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "clip/image/image.h"

namespace strobe::clip {

using Rgb = std::array<uint8_t, 3>;

Image blank_picture(int width, int height, Rgb color);

/// With premultiplied alpha: red, green, blue, alpha a pixel, no colour above its alpha.
struct Glyph {
  int width = 0, height = 0;
  std::vector<uint8_t> pixels;
};

/// Composites `glyph` over the picture, its upper left corner at (x, y). Throws strobe::Error unless it lies inside.
void draw(Image& picture, const Glyph& glyph, int x, int y);

/// Copies one picture into another. Throws strobe::Error unless it lies inside.
void paste(Image& picture, const Image& part, int x, int y);

/// The bytes of a PNG file.
std::string encode_png(const Image& picture);

}  // namespace strobe::clip
