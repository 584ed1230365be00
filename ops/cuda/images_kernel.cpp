// ops/images.h on CUDA: tensors into the parameters of strobe/images.h.
#include "strobe/images.h"

#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "ops/device_call.h"

namespace strobe::ops {
namespace {

at::Tensor normalize(const at::Tensor& images, at::ArrayRef<double> mean, at::ArrayRef<double> deviation,
                     bool channels_last) {
  TORCH_CHECK(images.scalar_type() == at::kByte && images.dim() == 4 && images.size(3) == 3 && images.is_contiguous(),
              "strobe::normalize_images: images: expected contiguous uint8 [B, H, W, 3], found ", images.scalar_type(),
              " ", images.sizes());
  TORCH_CHECK(mean.size() == 3 && deviation.size() == 3,
              "strobe::normalize_images: mean, deviation: expected 3 numbers each, found ", mean.size(), " and ",
              deviation.size());
  const c10::DeviceGuard guard(images.device());
  const auto format = channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  const at::Tensor out = at::empty({images.size(0), 3, images.size(1), images.size(2)},
                                   images.options().dtype(at::kFloat).memory_format(format));
  NormalizeImages params;
  params.images = images.size(0);
  params.places = images.size(1) * images.size(2);
  params.pixels = images.const_data_ptr<uint8_t>();
  for (std::size_t c = 0; c < 3; ++c) {
    params.mean[c] = static_cast<float>(mean[c]);
    params.deviation[c] = static_cast<float>(deviation[c]);
  }
  params.channels_last = channels_last;
  params.out = out.mutable_data_ptr<float>();
  params.stream = current_stream(images);
  translate_errors([&] { strobe::normalize_images(params); });
  return out;
}

/// The large side is `scale` times as large as t.
AveragePool shape_of(const at::Tensor& t, int64_t scale) {
  return {.dtype = t.scalar_type() == at::kHalf ? DType::kFloat16 : DType::kBFloat16,
          .images = t.size(0),
          .height = t.size(2) * scale,
          .width = t.size(3) * scale,
          .channels = t.size(1),
          .stream = current_stream(t)};
}

at::Tensor channels_last(const at::Tensor& like, int64_t height, int64_t width) {
  return at::empty({like.size(0), like.size(1), height, width},
                   like.options().memory_format(at::MemoryFormat::ChannelsLast));
}

at::Tensor pool_forward(const at::Tensor& x) {
  const c10::DeviceGuard guard(x.device());
  const at::Tensor input = x.contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor out = channels_last(x, x.size(2) / 2, x.size(3) / 2);
  translate_errors([&] { average_pool_forward(shape_of(x, 1), input.const_data_ptr(), out.mutable_data_ptr()); });
  return out;
}

at::Tensor pool_backward(const at::Tensor& grad_out) {
  const c10::DeviceGuard guard(grad_out.device());
  const at::Tensor gradient = grad_out.contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor grad_x = channels_last(gradient, gradient.size(2) * 2, gradient.size(3) * 2);
  translate_errors(
      [&] { average_pool_backward(shape_of(gradient, 2), gradient.const_data_ptr(), grad_x.mutable_data_ptr()); });
  return grad_x;
}

}  // namespace

TORCH_LIBRARY_IMPL(strobe, CUDA, m) {
  m.impl("normalize_images", TORCH_FN(normalize));
  m.impl("average_pool_forward", TORCH_FN(pool_forward));
  m.impl("average_pool_backward", TORCH_FN(pool_backward));
}

}  // namespace strobe::ops
