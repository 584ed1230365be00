#include "clip/image/resample.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace strobe::clip::internal {
namespace {

/// Keys 1981 with a = -0.5.
double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

// Weights are integers at this scale: 8 bits are the pixel's, 2 are left for sums above 1 and below 0.
constexpr int kWeightBits = 32 - 8 - 2;

std::vector<int32_t> fixed_point(const std::vector<double>& weights) {
  std::vector<int32_t> fixed(weights.size());
  std::transform(weights.begin(), weights.end(), fixed.begin(), [](double weight) {
    return static_cast<int32_t>(weight * (1 << kWeightBits) + (weight < 0 ? -0.5 : 0.5));
  });
  return fixed;
}

/// out[i] = sum over k of weights[k] * rows[k * stride + i], rounded and clipped. All the time that resizing takes is
/// spent here, so the machine's widest vectors are chosen when the program starts.
__attribute__((target_clones("arch=x86-64-v4", "avx2", "default"))) void weigh_rows(
    const uint8_t* rows, std::size_t stride, const int32_t* weights, int count, int32_t* sums, uint8_t* out, int size) {
  for (int i = 0; i < size; ++i) sums[i] = 1 << (kWeightBits - 1);
  int k = 0;
  for (; k + 4 <= count; k += 4) {
    const uint8_t *r0 = rows + static_cast<std::size_t>(k) * stride, *r1 = r0 + stride, *r2 = r1 + stride,
                  *r3 = r2 + stride;
    const int32_t w0 = weights[k], w1 = weights[k + 1], w2 = weights[k + 2], w3 = weights[k + 3];
    for (int i = 0; i < size; ++i) sums[i] += r0[i] * w0 + r1[i] * w1 + r2[i] * w2 + r3[i] * w3;
  }
  for (; k < count; ++k) {
    const uint8_t* row = rows + static_cast<std::size_t>(k) * stride;
    for (int i = 0; i < size; ++i) sums[i] += row[i] * weights[k];
  }
  for (int i = 0; i < size; ++i) out[i] = static_cast<uint8_t>(std::clamp(sums[i] >> kWeightBits, 0, 255));
}

/// Rows of pixels to columns and back: in[y][x] becomes out[x][y]. Whole pixels move.
template <int kChannels>
void transpose(const uint8_t* in, std::size_t in_stride, int rows, int columns, uint8_t* out, std::size_t out_stride) {
  for (int y = 0; y < rows; ++y) {
    const uint8_t* source = in + static_cast<std::size_t>(y) * in_stride;
    uint8_t* target = out + y * kChannels;
    for (int x = 0; x < columns; ++x, source += kChannels, target += out_stride) {
      std::memcpy(target, source, kChannels);
    }
  }
}

constexpr int kMaxStrip = 16;  // rows that are resized together: a pixel of each makes a vector

/// Along the rows. A strip of rows is transposed so that the taps of one output pixel become whole rows, as they are
/// along the columns.
template <int kChannels>
std::vector<uint8_t> resample_rows(const PixelView& input, const Taps& taps, const std::vector<int32_t>& weights) {
  const int width = static_cast<int>(taps.spans.size());
  const int strip = std::min(kMaxStrip, input.height);  // a wide image of few rows needs little scratch
  const std::size_t row_bytes = static_cast<std::size_t>(width) * kChannels;
  const std::size_t strip_bytes = static_cast<std::size_t>(strip) * kChannels;
  std::vector<uint8_t> out(row_bytes * static_cast<std::size_t>(input.height));
  std::vector<uint8_t> columns(strip_bytes * static_cast<std::size_t>(input.width));
  std::vector<uint8_t> resized(strip_bytes * static_cast<std::size_t>(width));
  int32_t sums[kMaxStrip * kChannels];
  for (int y = 0; y < input.height; y += strip) {
    const int rows = std::min(strip, input.height - y);
    transpose<kChannels>(input.pixels + static_cast<std::size_t>(y) * input.stride, input.stride, rows, input.width,
                         columns.data(), strip_bytes);
    for (int x = 0; x < width; ++x) {
      const Taps::Span span = taps.spans[static_cast<std::size_t>(x)];
      weigh_rows(&columns[strip_bytes * static_cast<std::size_t>(span.first)], strip_bytes,
                 &weights[static_cast<std::size_t>(x) * static_cast<std::size_t>(taps.stride)], span.count, sums,
                 &resized[strip_bytes * static_cast<std::size_t>(x)], static_cast<int>(strip_bytes));
    }
    transpose<kChannels>(resized.data(), strip_bytes, width, rows, &out[row_bytes * static_cast<std::size_t>(y)],
                         row_bytes);
  }
  return out;
}

std::vector<uint8_t> resample_columns(const PixelView& input, const Taps& taps, const std::vector<int32_t>& weights) {
  const std::size_t row_bytes = static_cast<std::size_t>(input.width) * static_cast<std::size_t>(input.channels);
  std::vector<uint8_t> out(row_bytes * taps.spans.size());
  std::vector<int32_t> sums(row_bytes);
  for (std::size_t y = 0; y < taps.spans.size(); ++y) {
    const Taps::Span span = taps.spans[y];
    weigh_rows(input.pixels + static_cast<std::size_t>(span.first) * input.stride, input.stride,
               &weights[y * static_cast<std::size_t>(taps.stride)], span.count, sums.data(), &out[row_bytes * y],
               static_cast<int>(row_bytes));
  }
  return out;
}

std::vector<uint8_t> resample_rows(const PixelView& input, int width) {
  const Taps taps = bicubic_taps(input.width, width);
  const std::vector<int32_t> weights = fixed_point(taps.weights);
  switch (input.channels) {
    case 1:
      return resample_rows<1>(input, taps, weights);
    case 2:
      return resample_rows<2>(input, taps, weights);
    case 3:
      return resample_rows<3>(input, taps, weights);
    default:
      return resample_rows<4>(input, taps, weights);
  }
}

/// The rounded sum goes into the two bytes one by one, and each is clipped by itself; an overshoot above 65535
/// therefore keeps its low byte.
uint16_t clip_bytes(double sum) {
  const int rounded = static_cast<int>(sum >= 0.0 ? sum + 0.5 : sum - 0.5);
  const int low = std::clamp(rounded % 256, 0, 255), high = std::clamp(rounded >> 8, 0, 255);
  return static_cast<uint16_t>(high << 8 | low);
}

/// `along` is how far apart the taps of one sum are, `across` how far the sums.
void resample_axis_16bit(const uint16_t* in, std::size_t in_along, std::size_t in_across, const Taps& taps,
                         std::size_t lines, uint16_t* out, std::size_t out_along, std::size_t out_across) {
  for (std::size_t line = 0; line < lines; ++line) {
    for (std::size_t i = 0; i < taps.spans.size(); ++i) {
      const double* weights = &taps.weights[i * static_cast<std::size_t>(taps.stride)];
      const uint16_t* first = in + line * in_across + static_cast<std::size_t>(taps.spans[i].first) * in_along;
      double sum = 0.0;
      for (int k = 0; k < taps.spans[i].count; ++k) sum += first[static_cast<std::size_t>(k) * in_along] * weights[k];
      out[line * out_across + i * out_along] = clip_bytes(sum);
    }
  }
}

}  // namespace

Taps bicubic_taps(int input_size, int output_size) {
  const double scale = static_cast<double>(input_size) / output_size;
  const double stretch = std::max(scale, 1.0);
  const double support = 2.0 * stretch, inverse = 1.0 / stretch;
  Taps taps;
  taps.stride = static_cast<int>(std::ceil(support)) * 2 + 1;
  taps.spans.reserve(static_cast<std::size_t>(output_size));
  taps.weights.assign(static_cast<std::size_t>(output_size) * static_cast<std::size_t>(taps.stride), 0.0);
  for (int i = 0; i < output_size; ++i) {
    const double center = (i + 0.5) * scale;
    const int first = std::max(static_cast<int>(center - support + 0.5), 0);
    const int count = std::min(static_cast<int>(center + support + 0.5), input_size) - first;
    double* weights = &taps.weights[static_cast<std::size_t>(i) * static_cast<std::size_t>(taps.stride)];
    double total = 0.0;
    for (int k = 0; k < count; ++k) {
      weights[k] = bicubic((k + first - center + 0.5) * inverse);
      total += weights[k];
    }
    for (int k = 0; k < count && total != 0.0; ++k) weights[k] /= total;
    taps.spans.push_back({first, count});
  }
  return taps;
}

std::vector<uint8_t> resample_8bit(const PixelView& input, int width, int height) {
  std::vector<uint8_t> rows;
  PixelView view = input;
  if (width != input.width) {
    rows = resample_rows(input, width);
    view = {rows.data(), static_cast<std::size_t>(width) * static_cast<std::size_t>(input.channels), width,
            input.height, input.channels};
  }
  const Taps taps = bicubic_taps(input.height, height);  // copies where the height stays
  return resample_columns(view, taps, fixed_point(taps.weights));
}

std::vector<uint8_t> resample_16bit(const PixelView& input, int width, int height) {
  const auto columns = static_cast<std::size_t>(width), lines = static_cast<std::size_t>(input.height);
  std::vector<uint16_t> pixels(static_cast<std::size_t>(input.width) * lines), rows(columns * lines);
  for (std::size_t y = 0; y < lines; ++y) {
    std::memcpy(&pixels[y * static_cast<std::size_t>(input.width)], input.pixels + y * input.stride,
                static_cast<std::size_t>(input.width) * 2);
  }
  resample_axis_16bit(pixels.data(), 1, static_cast<std::size_t>(input.width), bicubic_taps(input.width, width), lines,
                      rows.data(), 1, columns);
  std::vector<uint16_t> out(columns * static_cast<std::size_t>(height));
  resample_axis_16bit(rows.data(), columns, 1, bicubic_taps(input.height, height), columns, out.data(), columns, 1);
  std::vector<uint8_t> bytes(out.size() * 2);
  std::memcpy(bytes.data(), out.data(), bytes.size());
  return bytes;
}

}  // namespace strobe::clip::internal
