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
    return all.flatten(0, 1);
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

at::Tensor FeatureGather::own_first(const at::Tensor& own) {
  const int64_t size = ranks_->size(), rank = ranks_->rank();
  if (size == 1) return own;
  const at::Tensor all = gathering_.wait();
  return at::cat({own, all.narrow(0, 0, rank).flatten(0, 1), all.narrow(0, rank + 1, size - rank - 1).flatten(0, 1)});
}

at::Tensor FeatureGather::with_gradient(const at::Tensor& own) {
  return ranks_->size() == 1 ? own : Gather::apply(own, gathering_.wait(), ranks_);
}

at::Tensor scale_gradient(const at::Tensor& x, double factor) { return ScaleGradient::apply(x, factor); }

}  // namespace strobe::clip
