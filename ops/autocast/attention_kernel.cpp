// Autocast: q, k and v take the region's dtype, as in ATen's own attention.
#include <ATen/autocast_mode.h>
#include <torch/library.h>

#include "ops/attn_type.h"
#include "ops/inner.h"

namespace strobe::ops {
namespace {

/// The region's dtype, but fp32 where the flash types do not take it (fp16 on the CPU).
template <at::DeviceType kDevice>
at::ScalarType target_dtype(const AttentionOptions& options) {
  const at::ScalarType dtype = at::autocast::get_autocast_dtype(kDevice);
  const bool fp16_on_cpu = kDevice == at::kCPU && dtype == at::kHalf;
  return fp16_on_cpu && parse_attn_type(options.attn_type) != AttnType::kDotscale ? at::kFloat : dtype;
}

/// Calls the operator below autocast with its tensors cast; other arguments pass.
template <at::DeviceType kDevice, auto kOp, class... Head>
Tensor2 cast_and_call(const AttentionOptions& options, Head... head) {
  const at::ScalarType dtype = target_dtype<kDevice>(options);
  const auto cast = [&](const auto& argument) {
    if constexpr (std::is_same_v<std::decay_t<decltype(argument)>, at::Tensor>) {
      return at::autocast::cached_cast(dtype, argument, kDevice);
    } else {
      return argument;
    }
  };
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(
      at::autocast::get_autocast_dispatch_key_from_device_type(kDevice));
  return kOp(cast(head)..., options);
}

template <at::DeviceType kDevice>
void register_autocast(torch::Library& m) {
  constexpr auto attention_cast =
      &cast_and_call<kDevice, &attention, const at::Tensor&, const at::Tensor&, const at::Tensor&>;
  constexpr auto qkvpacked_cast = &cast_and_call<kDevice, &attention_qkvpacked, const at::Tensor&, int64_t>;
  constexpr auto kvpacked_cast = &cast_and_call<kDevice, &attention_kvpacked, const at::Tensor&, const at::Tensor&>;
  m.impl("attention", TORCH_FN(WithOptions<attention_cast>::call));
  m.impl("attention_qkvpacked", TORCH_FN(WithOptions<qkvpacked_cast>::call));
  m.impl("attention_kvpacked", TORCH_FN(WithOptions<kvpacked_cast>::call));
}

}  // namespace

TORCH_LIBRARY_IMPL(strobe, AutocastCPU, m) { register_autocast<at::kCPU>(m); }
TORCH_LIBRARY_IMPL(strobe, AutocastCUDA, m) { register_autocast<at::kCUDA>(m); }

}  // namespace strobe::ops
