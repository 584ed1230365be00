// ops/cross_entropy.h on CUDA: tensors into the parameters of strobe/cross_entropy.h.
#include "strobe/cross_entropy.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <tuple>

#include "ops/device_call.h"

namespace strobe::ops {
namespace {

PointwiseCall call_for(const at::Tensor& logits) {
  return {.dtype = logits.scalar_type() == at::kHalf ? DType::kFloat16 : DType::kBFloat16,
          .rows = logits.size(0),
          .width = logits.size(1),
          .stream = current_stream(logits)};
}

void check_targets(const at::Tensor& targets, const at::Tensor& logits) {
  TORCH_CHECK(targets.scalar_type() == at::kLong && targets.dim() == 1 && targets.size(0) == logits.size(0) &&
                  targets.device() == logits.device(),
              "strobe::cross_entropy: targets: expected int64 [", logits.size(0), "] on ", logits.device(), ", found ",
              targets.scalar_type(), " ", targets.sizes(), " on ", targets.device());
}

std::tuple<at::Tensor, at::Tensor> cross_entropy_forward_cuda(const at::Tensor& logits, const at::Tensor& targets,
                                                              int64_t ignored, double label_smoothing) {
  check_targets(targets, logits);
  const c10::DeviceGuard guard(logits.device());
  const at::Tensor x = logits.contiguous(), ids = targets.contiguous();
  const at::Tensor losses = at::empty({x.size(0)}, x.options().dtype(at::kFloat)), lse = at::empty_like(losses);
  translate_errors([&] {
    strobe::cross_entropy_forward({.call = call_for(x),
                                   .targets = {ids.const_data_ptr<int64_t>(), ignored, label_smoothing},
                                   .logits = x.const_data_ptr(),
                                   .losses = losses.mutable_data_ptr<float>(),
                                   .lse = lse.mutable_data_ptr<float>()});
  });
  return {losses, lse};
}

at::Tensor cross_entropy_backward_cuda(const at::Tensor& grad, const at::Tensor& logits, const at::Tensor& targets,
                                       const at::Tensor& lse, int64_t ignored, double label_smoothing) {
  const c10::DeviceGuard guard(logits.device());
  const at::Tensor x = logits.contiguous(), ids = targets.contiguous(), scale = grad.to(at::kFloat);
  const at::Tensor grad_logits = at::empty_like(x);
  translate_errors([&] {
    strobe::cross_entropy_backward({.call = call_for(x),
                                    .targets = {ids.const_data_ptr<int64_t>(), ignored, label_smoothing},
                                    .logits = x.const_data_ptr(),
                                    .lse = lse.const_data_ptr<float>(),
                                    .grad = scale.const_data_ptr<float>(),
                                    .grad_logits = grad_logits.mutable_data_ptr()});
  });
  return grad_logits;
}

}  // namespace

TORCH_LIBRARY_IMPL(strobe, CUDA, m) {
  m.impl("cross_entropy_forward", TORCH_FN(cross_entropy_forward_cuda));
  m.impl("cross_entropy_backward", TORCH_FN(cross_entropy_backward_cuda));
}

}  // namespace strobe::ops
