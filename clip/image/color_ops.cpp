#include "clip/image/color_ops.h"

#include <algorithm>
#include <array>

namespace strobe::clip::internal {
namespace {

using Table = std::array<uint8_t, 256>;
using Histogram = std::array<int64_t, 256>;

template <typename Function>
Table table_of(Function value) {
  Table table;
  for (int i = 0; i < 256; ++i)
    table[static_cast<std::size_t>(i)] = static_cast<uint8_t>(std::clamp<int>(value(i), 0, 255));
  return table;
}

void map_values(Image& image, const Table& table) {
  for (uint8_t& value : image.pixels) value = table[value];
}

/// A table of its own for each channel, made from the channel's histogram.
template <typename MakeTable>
void map_channels(Image& image, MakeTable make_table) {
  for (std::size_t c = 0; c < 3; ++c) {
    Histogram histogram{};
    for (std::size_t i = c; i < image.pixels.size(); i += 3) ++histogram[image.pixels[i]];
    const Table table = make_table(histogram);
    for (std::size_t i = c; i < image.pixels.size(); i += 3) image.pixels[i] = table[image.pixels[i]];
  }
}

Table identity() {
  return table_of([](int i) { return i; });
}

Table contrast_table(const Histogram& histogram) {
  int low = 0, high = 255;
  while (low < 255 && histogram[static_cast<std::size_t>(low)] == 0) ++low;
  while (high > 0 && histogram[static_cast<std::size_t>(high)] == 0) --high;
  if (high <= low) return identity();
  const double scale = 255.0 / (high - low), offset = -low * scale;
  return table_of([&](int i) { return static_cast<int>(i * scale + offset); });
}

Table equalizing_table(const Histogram& histogram) {
  int64_t total = 0, last = 0, values = 0;
  for (const int64_t count : histogram) {
    if (count == 0) continue;
    total += count;
    last = count;
    ++values;
  }
  const int64_t step = (total - last) / 255;
  if (values <= 1 || step == 0) return identity();
  int64_t sum = step / 2;
  return table_of([&](int i) {
    const auto value = static_cast<int>(std::min<int64_t>(sum / step, 255));
    sum += histogram[static_cast<std::size_t>(i)];
    return value;
  });
}

/// ITU-R 601-2 luma in 16-bit fixed point, rounded.
uint8_t luma(const uint8_t* rgb) {
  return static_cast<uint8_t>((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16);
}

/// from + factor * (to - from) in fp32, cut to an integer; outside 0..1 it can leave the range.
uint8_t blend(int from, int to, float factor) {
  const float value = static_cast<float>(from) + factor * static_cast<float>(to - from);
  return static_cast<uint8_t>(std::clamp(value, 0.0f, 255.0f));
}

/// 3x3 smoothing by 1 1 1 / 1 5 1 / 1 1 1 over 13, in fp32 and in Pillow's order; the outermost pixels stay.
Image smoothed(const Image& image) {
  Image out = image;
  constexpr float kSide = 1.0f / 13.0f, kCenter = 5.0f / 13.0f;
  const std::size_t stride = image.row_bytes();
  for (int y = 1; y + 1 < image.height; ++y) {
    const uint8_t *above = image.row(y - 1), *here = image.row(y), *below = image.row(y + 1);
    uint8_t* to = out.row(y);
    for (std::size_t i = 3; i + 3 < stride; ++i) {
      const auto weigh = [i](const uint8_t* row, float center) {
        return static_cast<float>(row[i - 3]) * kSide + static_cast<float>(row[i]) * center +
               static_cast<float>(row[i + 3]) * kSide;
      };
      float sum = 0.5f;
      sum += weigh(below, kSide);
      sum += weigh(here, kCenter);
      sum += weigh(above, kSide);
      to[i] = static_cast<uint8_t>(std::clamp(sum, 0.0f, 255.0f));
    }
  }
  return out;
}

}  // namespace

void posterize(Image& image, int bits) {
  if (bits >= 8) return;
  const int mask = ~((1 << (8 - bits)) - 1);
  map_values(image, table_of([&](int i) { return i & mask; }));
}

void solarize(Image& image, int threshold) {
  map_values(image, table_of([&](int i) { return i < threshold ? i : 255 - i; }));
}

void invert(Image& image) {
  map_values(image, table_of([](int i) { return 255 - i; }));
}

void auto_contrast(Image& image) { map_channels(image, contrast_table); }

void equalize(Image& image) { map_channels(image, equalizing_table); }

void adjust_color(Image& image, double factor) {
  const auto weight = static_cast<float>(factor);
  for (std::size_t i = 0; i < image.pixels.size(); i += 3) {
    const uint8_t gray = luma(&image.pixels[i]);
    for (std::size_t c = 0; c < 3; ++c) image.pixels[i + c] = blend(gray, image.pixels[i + c], weight);
  }
}

void adjust_contrast(Image& image, double factor) {
  int64_t sum = 0;
  for (std::size_t i = 0; i < image.pixels.size(); i += 3) sum += luma(&image.pixels[i]);
  const auto mean = static_cast<int>(static_cast<double>(sum) / static_cast<double>(image.pixels.size() / 3) + 0.5);
  const auto weight = static_cast<float>(factor);
  map_values(image, table_of([&](int i) { return blend(mean, i, weight); }));
}

void adjust_sharpness(Image& image, double factor) {
  const Image smooth = smoothed(image);
  const auto weight = static_cast<float>(factor);
  for (std::size_t i = 0; i < image.pixels.size(); ++i) {
    image.pixels[i] = blend(smooth.pixels[i], image.pixels[i], weight);
  }
}

}  // namespace strobe::clip::internal
