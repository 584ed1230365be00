#include "clip/training/feature_gather.h"

#include <ATen/ops/cat.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <utility>
#include <vector>

namespace strobe::clip {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Lets an autograd node keep the communicator.
struct Ranks : torch::CustomClassHolder {
  explicit Ranks(std::shared_ptr<train::Communicator> ranks) : value(std::move(ranks)) {}
  std::shared_ptr<train::Communicator> value;
};

struct Gather : torch::autograd::Function<Gather> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& /*own*/, const at::Tensor& all,
                            const std::shared_ptr<train::Communicator>& ranks) {
    context->saved_data["ranks"] = c10::IValue::make_capsule(c10::make_intrusive<Ranks>(ranks));
    return all.view_as(all);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto ranks = context->saved_data["ranks"].toCapsule();
    return {static_cast<Ranks&>(*ranks).value->scatter_sum(gradients[0]), at::Tensor(), at::Tensor()};
  }
};

struct ScaleGradient : torch::autograd::Function<ScaleGradient> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, double factor) {
    context->saved_data["factor"] = factor;
    return x.view_as(x);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    return {gradients[0].mul(context->saved_data["factor"].toDouble()), at::Tensor()};
  }
};

}  // namespace

FeatureGather::FeatureGather(const at::Tensor& features, std::shared_ptr<train::Communicator> ranks)
    : ranks_(std::move(ranks)), gathering_(ranks_->begin_all_gather(features.detach())) {}

const at::Tensor& FeatureGather::values() {
  if (!values_.defined()) values_ = gathering_.wait().flatten(0, 1);
  return values_;
}

at::Tensor FeatureGather::own_first(const at::Tensor& own) {
  const int64_t before = ranks_->rank() * own.size(0), after = before + own.size(0);
  const at::Tensor& all = values();
  return at::cat({own, all.narrow(0, 0, before), all.narrow(0, after, all.size(0) - after)});
}

at::Tensor FeatureGather::with_gradient(const at::Tensor& own) { return Gather::apply(own, values(), ranks_); }

at::Tensor scale_gradient(const at::Tensor& x, double factor) { return ScaleGradient::apply(x, factor); }

}  // namespace strobe::clip
