// Image.resize(..., BICUBIC) of Pillow for interleaved 8-bit channels and for 16-bit gray.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace strobe::clip::internal {

/// What a pixel of the result is made of along one axis: taps [first, first + count) with these weights.
struct Taps {
  struct Span {
    int first;
    int count;
  };
  std::vector<Span> spans;
  std::vector<double> weights;  // [spans.size(), stride], 0 beyond a span's count
  int stride = 0;
};

/// Of the bicubic filter (a = -0.5) stretched to cover every pixel of the input.
Taps bicubic_taps(int input_size, int output_size);

/// A picture within another: rows of `channels` interleaved bytes a pixel, `stride` bytes apart.
struct PixelView {
  const uint8_t* pixels;
  std::size_t stride;
  int width;
  int height;
  int channels;
};

/// [height, width, channels] without gaps.
std::vector<uint8_t> resample_8bit(const PixelView& input, int width, int height);

/// The same for one channel of 16 bits in native byte order.
std::vector<uint8_t> resample_16bit(const PixelView& input, int width, int height);

}  // namespace strobe::clip::internal
