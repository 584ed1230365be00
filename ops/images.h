// What an image tower does to pixels and to channels-last activations beside convolutions and norms.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>

namespace strobe::ops {

#pragma GCC visibility push(default)

/// Whether normalize_images takes these.
bool fuses_normalize_images(const at::Tensor& images);

/// (x / 255 - mean) / deviation of each channel in fp32, operation by operation, in one kernel: uint8 [B, H, W, 3] on
/// CUDA, H * W a multiple of 4 -> [B, 3, H, W] in the memory format asked for.
at::Tensor normalize_images(const at::Tensor& images, const std::array<float, 3>& mean,
                            const std::array<float, 3>& deviation, at::MemoryFormat format);

/// Means over squares of 2 x 2 places, [B, C, H, W] -> [B, C, H / 2, W / 2], once differentiable. Of 16 bits with the
/// channels last on CUDA, C a multiple of 8, H and W even, by a kernel of our own (strobe/images.h): ATen's takes ten
/// times as long; else by ATen.
at::Tensor average_pool(const at::Tensor& x);

#pragma GCC visibility pop

}  // namespace strobe::ops
