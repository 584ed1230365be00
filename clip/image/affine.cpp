#include "clip/image/affine.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numbers>

namespace strobe::clip::internal {
namespace {

/// Python's round(value, 15).
double round_15(double value) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.15f", value);
  return std::strtod(text, nullptr);
}

/// The cubic through four neighbours (Keys 1981 with a = -1), t from the second towards the third.
double cubic(double v0, double v1, double v2, double v3, double t) {
  const double linear = -v0 + v2;
  const double square = 2 * (v0 - v1) + v2 - v3;
  const double cube = -v0 + v1 - v2 + v3;
  return v1 + t * (linear + t * (square + t * cube));
}

/// Where the four neighbours along one axis start, and how far the point lies between the middle two.
struct Position {
  int first;
  double fraction;

  explicit Position(double coordinate) {
    const double centered = coordinate - 0.5;
    const int floor = static_cast<int>(std::floor(centered));
    first = floor - 1;
    fraction = centered - floor;
  }
};

void sample(const Image& image, double x, double y, uint8_t* out) {
  const Position column(x), row(y);
  std::size_t offsets[4];
  for (int i = 0; i < 4; ++i)
    offsets[i] = 3 * static_cast<std::size_t>(std::clamp(column.first + i, 0, image.width - 1));
  const uint8_t* rows[4];
  for (int i = 0; i < 4; ++i) rows[i] = image.row(std::clamp(row.first + i, 0, image.height - 1));
  for (std::size_t c = 0; c < 3; ++c) {
    double values[4];
    for (int i = 0; i < 4; ++i) {
      const uint8_t* in = rows[i] + c;
      values[i] = cubic(in[offsets[0]], in[offsets[1]], in[offsets[2]], in[offsets[3]], column.fraction);
    }
    out[c] =
        static_cast<uint8_t>(std::clamp(cubic(values[0], values[1], values[2], values[3], row.fraction), 0.0, 255.0));
  }
}

}  // namespace

Image transform_affine(const Image& image, const AffineMatrix& matrix, const std::array<uint8_t, 3>& fill) {
  Image out(ImageMode::kRgb, image.width, image.height);
  const auto& [a, b, c, d, e, f] = matrix;
  for (int y = 0; y < out.height; ++y) {
    uint8_t* to = out.row(y);
    for (int x = 0; x < out.width; ++x, to += 3) {
      const double column = x + 0.5, row = y + 0.5;
      const double in_x = a * column + b * row + c, in_y = d * column + e * row + f;
      if (in_x < 0.0 || in_x >= image.width || in_y < 0.0 || in_y >= image.height) {
        std::memcpy(to, fill.data(), 3);
      } else {
        sample(image, in_x, in_y, to);
      }
    }
  }
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
