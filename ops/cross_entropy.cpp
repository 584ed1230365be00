#include "ops/cross_entropy.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "strobe/pointwise.h"

namespace strobe::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <class Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

class CrossEntropyFunction : public torch::autograd::Function<CrossEntropyFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& logits, const at::Tensor& targets, int64_t ignored,
                            double label_smoothing) {
    static const auto op =
        find<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&, int64_t, double)>(
            "strobe::cross_entropy_forward");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [losses, lse] = op.call(logits, targets, ignored, label_smoothing);
    ctx->save_for_backward({logits, targets, lse});
    ctx->saved_data["ignored"] = ignored;
    ctx->saved_data["label_smoothing"] = label_smoothing;
    return losses.sum();
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    static const auto op =
        find<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t, double)>(
            "strobe::cross_entropy_backward");
    const variable_list saved = ctx->get_saved_variables();
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return {op.call(grads[0], saved[0], saved[1], saved[2], ctx->saved_data["ignored"].toInt(),
                    ctx->saved_data["label_smoothing"].toDouble()),
            at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

/// Whether the kernels take logits like these.
bool fuses_cross_entropy(const at::Tensor& logits) {
  const bool is_16_bit = logits.scalar_type() == at::kHalf || logits.scalar_type() == at::kBFloat16;
  return logits.is_cuda() && is_16_bit && logits.dim() == 2 && logits.size(1) > 0 &&
         logits.size(1) % kPointwiseVector == 0;
}

}  // namespace

at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& targets, int64_t ignored, double label_smoothing) {
  TORCH_CHECK(label_smoothing >= 0.0 && label_smoothing < 1.0,
              "strobe::cross_entropy: label_smoothing: expected at least 0 and below 1, found ", label_smoothing);
  if (fuses_cross_entropy(logits)) return CrossEntropyFunction::apply(logits, targets, ignored, label_smoothing);
  // ATen's log-softmax keeps the dtype of its input, under autocast too; log-probabilities of 16 bits are too coarse.
  const at::Tensor wide = logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat);
  return at::cross_entropy_loss(wide, targets, /*weight=*/{}, at::Reduction::Sum, ignored, label_smoothing);
}

TORCH_LIBRARY_FRAGMENT(strobe, m) {
  const std::vector<at::Tag> pure = {at::Tag::pt2_compliant_tag};
  m.def(torch::schema("cross_entropy_forward(Tensor logits, Tensor targets, int ignored, float label_smoothing) -> "
                      "(Tensor losses, Tensor lse)"),
        pure);
  m.def(torch::schema("cross_entropy_backward(Tensor grad, Tensor logits, Tensor targets, Tensor lse, int ignored, "
                      "float label_smoothing) -> Tensor"),
        pure);
}

}  // namespace strobe::ops
