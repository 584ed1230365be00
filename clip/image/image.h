// Images as Pillow holds them: the pixel format ("mode") that a file has stays until the end, because resizing treats
// the modes differently (Chinese-CLIP resizes first and converts to RGB afterwards).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "strobe/types.h"

namespace strobe::clip {

/// What decoding throws: what is wrong with the bytes, or the name of a format that is not read.
class ImageError : public Error {
 public:
  using Error::Error;
};

/// Pillow's modes "1", "L", "LA", "P", "RGB", "RGBA", "CMYK" (0 is no ink) and "I;16".
enum class ImageMode { kBilevel, kGray, kGrayAlpha, kPalette, kRgb, kRgba, kCmyk, kGray16 };

/// Bytes a pixel: 1 for kBilevel (0 or 255), kGray and kPalette, 2 for kGrayAlpha and kGray16 (native byte order).
int bytes_per_pixel(ImageMode mode);

struct Image {
  ImageMode mode = ImageMode::kRgb;
  int width = 0;
  int height = 0;
  std::vector<uint8_t> pixels;   // [height, width, bytes_per_pixel], without gaps
  std::vector<uint8_t> palette;  // kPalette: 256 RGB triples

  Image() = default;
  Image(ImageMode mode, int width, int height);  // black
  std::size_t row_bytes() const { return static_cast<std::size_t>(width) * bytes_per_pixel(mode); }
  uint8_t* row(int y) { return pixels.data() + static_cast<std::size_t>(y) * row_bytes(); }
  const uint8_t* row(int y) const { return pixels.data() + static_cast<std::size_t>(y) * row_bytes(); }
};

/// Pillow's limit against decompression bombs: twice Image.MAX_IMAGE_PIXELS.
constexpr int64_t kMaxImagePixels = 178956970;

/// Reads JPEG, PNG and WebP (of an animation the first frame), pixels equal to Pillow's. Transparency named by colour
/// (PNG's tRNS) and EXIF rotation are ignored, as they are by the original. Throws ImageError for anything else, for
/// files cut short, damaged or of more than kMaxImagePixels. Safe on any input.
Image decode_image(std::string_view bytes);

struct Box {
  int left = 0;
  int top = 0;
  int width = 0;
  int height = 0;
};

/// Image.crop(box) and Image.resize((width, height), BICUBIC): two passes in 8-bit fixed point; the modes 1 and P take
/// the nearest pixel, alpha is premultiplied meanwhile. The box must lie in the image.
Image resize(const Image& image, const Box& box, int width, int height);

/// Image.convert("RGB"): alpha is dropped, 16-bit values above 255 are white.
Image to_rgb(Image image);

/// Image.transpose(FLIP_LEFT_RIGHT).
void flip_horizontally(Image& image);

}  // namespace strobe::clip
