#include "ops/images.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/avg_pool2d.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <vector>

#include "strobe/images.h"

namespace strobe::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kPixels = 4;  // that the kernel takes together

template <class Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

class AveragePoolFunction : public torch::autograd::Function<AveragePoolFunction> {
 public:
  static at::Tensor forward(AutogradContext*, const at::Tensor& x) {
    static const auto op = find<at::Tensor(const at::Tensor&)>("strobe::average_pool_forward");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return op.call(x);
  }

  static variable_list backward(AutogradContext*, variable_list grads) {
    static const auto op = find<at::Tensor(const at::Tensor&)>("strobe::average_pool_backward");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return {op.call(grads[0])};
  }
};

bool fuses_average_pool(const at::Tensor& x) {
  const bool is_16_bit = x.scalar_type() == at::kHalf || x.scalar_type() == at::kBFloat16;
  return x.is_cuda() && is_16_bit && x.dim() == 4 && x.is_contiguous(at::MemoryFormat::ChannelsLast) &&
         x.size(1) % kPointwiseVector == 0 && x.size(2) % 2 == 0 && x.size(3) % 2 == 0;
}

}  // namespace

bool fuses_normalize_images(const at::Tensor& images) {
  return images.is_cuda() && images.is_contiguous() && images.size(1) * images.size(2) % kPixels == 0;
}

at::Tensor normalize_images(const at::Tensor& images, const std::array<float, 3>& mean,
                            const std::array<float, 3>& deviation, at::MemoryFormat format) {
  static const auto op =
      find<at::Tensor(const at::Tensor&, at::ArrayRef<double>, at::ArrayRef<double>, bool)>("strobe::normalize_images");
  const std::vector<double> means(mean.begin(), mean.end()), deviations(deviation.begin(), deviation.end());
  return op.call(images, means, deviations, format == at::MemoryFormat::ChannelsLast);
}

at::Tensor average_pool(const at::Tensor& x) {
  return fuses_average_pool(x) ? AveragePoolFunction::apply(x) : at::avg_pool2d(x, {2, 2});
}

TORCH_LIBRARY_FRAGMENT(strobe, m) {
  const std::vector<at::Tag> pure = {at::Tag::pt2_compliant_tag};
  m.def(torch::schema("normalize_images(Tensor images, float[] mean, float[] deviation, bool channels_last) -> Tensor"),
        pure);
  m.def(torch::schema("average_pool_forward(Tensor x) -> Tensor"), pure);
  m.def(torch::schema("average_pool_backward(Tensor grad_out) -> Tensor"), pure);
}

}  // namespace strobe::ops
