#include "clip/image/transform.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <array>
#include <cstring>

#include "ops/images.h"

namespace strobe::clip {
namespace {

/// CLIP's (Radford et al. 2021), of R, G and B.
constexpr std::array<float, 3> kMean = {0.48145466f, 0.4578275f, 0.40821073f};
constexpr std::array<float, 3> kStd = {0.26862954f, 0.26130258f, 0.27577711f};

void copy_out(const Image& image, uint8_t* out) { std::memcpy(out, image.pixels.data(), image.pixels.size()); }

/// [1, 3, 1, 1] beside the images, filled there: a copy from the host would wait for all that the device has to do.
at::Tensor of_channels(const std::array<float, 3>& values, const at::Tensor& like) {
  const at::Tensor out = at::empty({1, 3, 1, 1}, like.options().memory_format(at::MemoryFormat::Contiguous));
  for (int64_t c = 0; c < 3; ++c) out.select(1, c).fill_(values[static_cast<std::size_t>(c)]);
  return out;
}

}  // namespace

void transform_image(const Image& image, int resolution, uint8_t* out) {
  copy_out(to_rgb(resize(image, {0, 0, image.width, image.height}, resolution, resolution)), out);
}

void augment_image(const Image& image, const AugmentDraws& draws, int resolution, uint8_t* out) {
  Image resized = resize(image, draws.crop, resolution, resolution);
  if (draws.flip) flip_horizontally(resized);
  Image rgb = to_rgb(std::move(resized));
  auto_augment(rgb, draws);
  copy_out(rgb, out);
}

at::Tensor normalize_images(const at::Tensor& images, at::MemoryFormat format) {
  if (images.scalar_type() != at::kByte || images.dim() != 4 || images.size(3) != 3) {
    throw Error(fmt::format("normalize_images: expected uint8 [B, R, R, 3], found {} {}",
                            c10::toString(images.scalar_type()), c10::str(images.sizes())));
  }
  if (ops::fuses_normalize_images(images)) return ops::normalize_images(images, kMean, kStd, format);
  const at::Tensor pixels = images.permute({0, 3, 1, 2});
  at::Tensor out = at::empty(pixels.sizes(), pixels.options().dtype(at::kFloat).memory_format(format));
  out.copy_(pixels);
  // A tensor, since dividing by a number is a multiplication by its inverse on CUDA, which rounds differently.
  out.div_(of_channels({255.0f, 255.0f, 255.0f}, out));
  return out.sub_(of_channels(kMean, out)).div_(of_channels(kStd, out));
}

}  // namespace strobe::clip
