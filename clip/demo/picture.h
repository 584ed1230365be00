// What the built-in data set draws on: 8-bit RGB pictures and their PNG files.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace strobe::clip {

using Rgb = std::array<uint8_t, 3>;

/// Rows from the top, 3 bytes a pixel.
struct Picture {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> pixels;

  Picture(int64_t width, int64_t height, Rgb background);

  uint8_t* at(int64_t x, int64_t y) { return pixels.data() + 3 * (y * width + x); }
  const uint8_t* at(int64_t x, int64_t y) const { return pixels.data() + 3 * (y * width + x); }
};

/// With premultiplied alpha: red, green, blue, alpha a pixel, no colour above its alpha.
struct Glyph {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> pixels;
};

/// Composites `glyph` over the picture, its upper left corner at (x, y). It must lie inside.
void draw(Picture& picture, const Glyph& glyph, int64_t x, int64_t y);

/// The bytes of a PNG file.
std::string encode_png(const Picture& picture);

}  // namespace strobe::clip
