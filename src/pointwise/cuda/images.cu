// normalize: a thread takes 4 pixels, 12 bytes in, three float4 out. Pooling: a thread takes 8 channels of a square.
#include <algorithm>

#include "src/pointwise/cuda/launch.h"
#include "src/pointwise/cuda/vector.cuh"
#include "strobe/images.h"

namespace strobe::pointwise {
namespace {

constexpr int kThreads = 256, kPixels = 4, kChannels = 3;
constexpr int64_t kMaxBlocks = 1 << 20;  // the rest by a grid-stride loop

__global__ void __launch_bounds__(kThreads) normalize(NormalizeImages p) {
  const int64_t groups = p.places / kPixels, count = p.images * groups;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t group = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; group < count; group += step) {
    uchar4 bytes[kChannels];
#pragma unroll
    for (int i = 0; i < kChannels; ++i) bytes[i] = reinterpret_cast<const uchar4*>(p.pixels)[group * kChannels + i];
    const uint8_t pixels[kPixels * kChannels] = {bytes[0].x, bytes[0].y, bytes[0].z, bytes[0].w,
                                                 bytes[1].x, bytes[1].y, bytes[1].z, bytes[1].w,
                                                 bytes[2].x, bytes[2].y, bytes[2].z, bytes[2].w};
    float values[kPixels * kChannels];
#pragma unroll
    for (int i = 0; i < kPixels * kChannels; ++i) {
      const int c = i % kChannels;
      values[i] = __fdiv_rn(__fsub_rn(__fdiv_rn(static_cast<float>(pixels[i]), 255.0f), p.mean[c]), p.deviation[c]);
    }
    auto* out = reinterpret_cast<float4*>(p.out);
#pragma unroll
    for (int i = 0; i < kChannels; ++i) {
      if (p.channels_last) {
        out[group * kChannels + i] = {values[4 * i], values[4 * i + 1], values[4 * i + 2], values[4 * i + 3]};
      } else {
        out[(group / groups * kChannels + i) * groups + group % groups] = {
            values[i], values[i + kChannels], values[i + 2 * kChannels], values[i + 3 * kChannels]};
      }
    }
  }
}

/// Where a square's four places are in x, and its mean in out.
struct Square {
  int64_t places[4], mean;
  __device__ Square(const AveragePool& shape, int64_t index) {
    const int64_t vectors = shape.channels / kVector, columns = shape.width / 2, rows = shape.height / 2;
    const int64_t channel = index % vectors * kVector, square = index / vectors;
    const int64_t column = square % columns, row = square / columns % rows, image = square / columns / rows;
    mean = index * kVector;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t y = 2 * row + i / 2, x = 2 * column + i % 2;
      places[i] = ((image * shape.height + y) * shape.width + x) * shape.channels + channel;
    }
  }
};

int64_t squares(const AveragePool& shape) {
  return shape.images * (shape.height / 2) * (shape.width / 2) * (shape.channels / kVector);
}

template <class T>
__global__ void __launch_bounds__(kThreads) pool(AveragePool shape, int64_t count, const T* x, T* out) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= count) return;
  const Square square(shape, index);
  Packed<T> loaded[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) loaded[i] = load(x + square.places[i]);
  Floats mean;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const Floats values = unpack(loaded[i]);
#pragma unroll
    for (int j = 0; j < kVector; ++j) mean.v[j] += 0.25f * values.v[j];
  }
  store(out + square.mean, pack<T>(mean));
}

template <class T>
__global__ void __launch_bounds__(kThreads) spread(AveragePool shape, int64_t count, const T* grad_out, T* grad_x) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= count) return;
  const Square square(shape, index);
  Floats values = unpack(load(grad_out + square.mean));
#pragma unroll
  for (int j = 0; j < kVector; ++j) values.v[j] *= 0.25f;
  const Packed<T> packed = pack<T>(values);
#pragma unroll
  for (int i = 0; i < 4; ++i) store(grad_x + square.places[i], packed);
}

/// The blocks for a shape, after a look at it.
unsigned pool_blocks(const char* operation, const AveragePool& shape) {
  check_call(operation, {.dtype = shape.dtype, .rows = shape.images, .width = shape.channels});
  require(shape.height % 2 == 0, operation, "an even height", shape.height);
  require(shape.width % 2 == 0, operation, "an even width", shape.width);
  const int64_t blocks = ceil_div(squares(shape), kThreads);
  require(blocks < int64_t{1} << 31, operation, "less than 2^31 blocks", blocks);
  return static_cast<unsigned>(blocks);
}

}  // namespace
}  // namespace strobe::pointwise

namespace strobe {

void normalize_images(const NormalizeImages& params) {
  using namespace pointwise;
  require(params.places % kPixels == 0, "normalize_images", "places in fours", params.places);
  const int64_t blocks = std::min(kMaxBlocks, ceil_div(params.images * params.places / kPixels, kThreads));
  if (blocks == 0) return;
  normalize<<<static_cast<unsigned>(blocks), kThreads, 0, static_cast<cudaStream_t>(params.stream)>>>(params);
  check_launch("normalize_images");
}

void average_pool_forward(const AveragePool& shape, const void* x, void* out) {
  using namespace pointwise;
  const unsigned blocks = pool_blocks("average_pool_forward", shape);
  if (blocks == 0) return;
  with_element({.dtype = shape.dtype}, [&](auto element) {
    using T = decltype(element);
    pool<T><<<blocks, kThreads, 0, static_cast<cudaStream_t>(shape.stream)>>>(
        shape, squares(shape), static_cast<const T*>(x), static_cast<T*>(out));
  });
  check_launch("average_pool_forward");
}

void average_pool_backward(const AveragePool& shape, const void* grad_out, void* grad_x) {
  using namespace pointwise;
  const unsigned blocks = pool_blocks("average_pool_backward", shape);
  if (blocks == 0) return;
  with_element({.dtype = shape.dtype}, [&](auto element) {
    using T = decltype(element);
    spread<T><<<blocks, kThreads, 0, static_cast<cudaStream_t>(shape.stream)>>>(
        shape, squares(shape), static_cast<const T*>(grad_out), static_cast<T*>(grad_x));
  });
  check_launch("average_pool_backward");
}

}  // namespace strobe
