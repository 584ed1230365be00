#include "clip/image/affine.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numbers>
#include <vector>

namespace strobe::clip::internal {
namespace {

/// Python's round(value, 15).
double round_15(double value) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.15f", value);
  return std::strtod(text, nullptr);
}

/// The cubic through four neighbours (Keys 1981 with a = -1), t from the second towards the third.
inline double cubic(double v0, double v1, double v2, double v3, double t) {
  const double linear = -v0 + v2;
  const double square = 2 * (v0 - v1) + v2 - v3;
  const double cube = -v0 + v1 - v2 + v3;
  return v1 + t * (linear + t * (square + t * cube));
}

/// Where the four neighbours along one axis start, and how far the point lies between the middle two.
struct Position {
  int first;
  double fraction;

  explicit Position(double coordinate) {  // not negative
    const double centered = coordinate - 0.5;
    const int floor = static_cast<int>(centered + 1.0) - 1;
    first = floor - 1;
    fraction = centered - floor;
  }
};

/// Pixels of four bytes, with the outermost ones repeated around them, so that every point has all its neighbours.
class PaddedImage {
 public:
  explicit PaddedImage(const Image& image)
      : stride_(4 * (static_cast<std::size_t>(image.width) + 2 * kPadding)),
        pixels_(stride_ * (static_cast<std::size_t>(image.height) + 2 * kPadding)) {
    for (int y = -kPadding; y < image.height + kPadding; ++y) {
      const uint8_t* row = image.row(std::clamp(y, 0, image.height - 1));
      for (int x = -kPadding; x < image.width + kPadding; ++x) {
        std::memcpy(&pixels_[offset(x, y)], row + 3 * std::clamp(x, 0, image.width - 1), 3);
      }
    }
  }

  const uint8_t* at(int x, int y) const { return &pixels_[offset(x, y)]; }
  std::size_t stride() const { return stride_; }

 private:
  static constexpr int kPadding = 2;
  std::size_t offset(int x, int y) const {
    return static_cast<std::size_t>(y + kPadding) * stride_ + 4 * static_cast<std::size_t>(x + kPadding);
  }
  std::size_t stride_;
  std::vector<uint8_t> pixels_;
};

/// Four channels at once, the last being the padding.
inline void sample(const PaddedImage& image, double x, double y, uint8_t* out) {
  const Position column(x), row(y);
  const uint8_t* pixels = image.at(column.first, row.first);
  double rows[4][4];
  for (int i = 0; i < 4; ++i, pixels += image.stride()) {
    double in[16];
    for (int k = 0; k < 16; ++k) in[k] = pixels[k];
    for (int c = 0; c < 4; ++c) rows[i][c] = cubic(in[c], in[4 + c], in[8 + c], in[12 + c], column.fraction);
  }
  double values[4];
  for (int c = 0; c < 4; ++c) values[c] = cubic(rows[0][c], rows[1][c], rows[2][c], rows[3][c], row.fraction);
  for (int c = 0; c < 3; ++c) out[c] = static_cast<uint8_t>(std::clamp(values[c], 0.0, 255.0));
}

/// AVX2 without fused multiply-add: that would round otherwise than Pillow does.
__attribute__((target_clones("avx2", "default"))) void transform(const PaddedImage& image, const AffineMatrix& matrix,
                                                                 const std::array<uint8_t, 3>& fill, Image& out) {
  const auto& [a, b, c, d, e, f] = matrix;
  for (int y = 0; y < out.height; ++y) {
    uint8_t* to = out.row(y);
    for (int x = 0; x < out.width; ++x, to += 3) {
      const double column = x + 0.5, row = y + 0.5;
      const double in_x = a * column + b * row + c, in_y = d * column + e * row + f;
      if (in_x < 0.0 || in_x >= out.width || in_y < 0.0 || in_y >= out.height) {
        std::memcpy(to, fill.data(), 3);
      } else {
        sample(image, in_x, in_y, to);
      }
    }
  }
}

}  // namespace

Image transform_affine(const Image& image, const AffineMatrix& matrix, const std::array<uint8_t, 3>& fill) {
  Image out(ImageMode::kRgb, image.width, image.height);
  transform(PaddedImage(image), matrix, fill, out);
  return out;
}

AffineMatrix rotation(double degrees, int width, int height) {
  const double turn = std::fmod(degrees, 360.0);
  const double angle = -((turn < 0 ? turn + 360.0 : turn) * (std::numbers::pi / 180.0));
  const double cosine = round_15(std::cos(angle)), sine = round_15(std::sin(angle));
  const double minus_sine = round_15(-std::sin(angle));
  const double center_x = width / 2.0, center_y = height / 2.0;
  const double shift_x = cosine * -center_x + sine * -center_y + 0.0;
  const double shift_y = minus_sine * -center_x + cosine * -center_y + 0.0;
  return {cosine, sine, shift_x + center_x, minus_sine, cosine, shift_y + center_y};
}

}  // namespace strobe::clip::internal
