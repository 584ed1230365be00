// What an image tower does to pixels and channels-last activations beside convolutions and norms, on CUDA. Nothing is
// allocated, nothing waits for the device. Functions throw strobe::Error.
#pragma once

#include <cstdint>

#include "strobe/pointwise.h"

namespace strobe {

/// out = (pixel / 255 - mean) / deviation of each channel in float32, operation by operation.
struct NormalizeImages {
  int64_t images = 0;
  int64_t places = 0;               // of an image, height * width: a multiple of 4
  const uint8_t* pixels = nullptr;  // [images, places, 3], 4-byte aligned
  float mean[3] = {}, deviation[3] = {};
  bool channels_last = false;  // out is [images, places, 3], else [images, 3, places]; 16-byte aligned
  float* out = nullptr;
  void* stream = nullptr;  // cudaStream_t
};
void normalize_images(const NormalizeImages& params);

/// Means over squares of 2 x 2 places; activations as in strobe/pointwise.h.
struct AveragePool {
  DType dtype = DType::kFloat16;
  int64_t images = 0, height = 0, width = 0;  // of the large side; height and width even
  int64_t channels = 0;                       // a multiple of kPointwiseVector
  void* stream = nullptr;                     // cudaStream_t
};
/// x [images, height, width, channels] -> out [images, height / 2, width / 2, channels].
void average_pool_forward(const AveragePool& shape, const void* x, void* out);
/// grad_out, like out -> grad_x, like x.
void average_pool_backward(const AveragePool& shape, const void* grad_out, void* grad_x);

}  // namespace strobe
