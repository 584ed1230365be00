#include "train/distributed/gradient_reducer.h"

#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <limits>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <unordered_map>

namespace strobe::train {
namespace {

using Group = c10::intrusive_ptr<c10d::ProcessGroup>;

/// Reduces a bucket by the sum; without a hook the Reducer would divide by the number of processes.
class SumHook : public c10d::CppCommHookInterface<Group> {
 public:
  using CppCommHookInterface::CppCommHookInterface;
  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    std::vector<at::Tensor> tensors = {bucket.getBufferRef()};
    return state_->allreduce(tensors)->getFuture();
  }
};

std::unique_ptr<c10d::Reducer> make_reducer(const std::vector<at::Tensor>& parameters,
                                            std::unordered_map<std::size_t, std::string> names, const Group& group) {
  const std::vector<bool> sparse(parameters.size(), false);
  // One bucket at first; the real ones follow the order in which the first backward finds the gradients.
  auto buckets =
      std::get<0>(c10d::compute_bucket_assignment_by_size(parameters, {std::numeric_limits<int64_t>::max()}, sparse));
  std::reverse(buckets.begin(), buckets.end());
  auto reducer = std::make_unique<c10d::Reducer>(
      parameters, std::move(buckets), group, sparse, c10d::kDefaultBucketBytesCap, /*find_unused_parameters=*/false,
      /*gradient_as_bucket_view=*/true, std::move(names), c10d::kDefaultFirstBucketBytes,
      /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false, std::vector<int64_t>{});
  reducer->register_comm_hook(std::make_unique<SumHook>(group));
  return reducer;
}

}  // namespace

GradientReducer::GradientReducer(const std::vector<std::pair<std::string, at::Tensor>>& parameters,
                                 Communicator& communicator)
    : communicator_(communicator) {
  std::unordered_map<std::size_t, std::string> names;
  for (const auto& [name, parameter] : parameters) {
    names[parameters_.size()] = name;
    parameters_.push_back(parameter);
  }
  if (communicator.size() > 1) reducer_ = make_reducer(parameters_, std::move(names), communicator.process_group());
}

GradientReducer::~GradientReducer() = default;

void GradientReducer::backward(const at::Tensor& loss, bool reduce) {
  if (!reducer_) return torch::autograd::backward({loss}, {});
  const auto run = [&] {
    if (loss.defined()) return torch::autograd::backward({loss}, {});
    std::vector<at::Tensor> outputs, zeros;
    for (const at::Tensor& parameter : parameters_) {
      outputs.push_back(parameter.view_as(parameter));
      zeros.push_back(at::zeros_like(parameter));
    }
    torch::autograd::backward(outputs, zeros);
  };
  if (!reduce) return run();
  communicator_.guarded([&] {
    if (reducer_->should_rebuild_buckets()) reducer_->rebuild_buckets();
    reducer_->prepare_for_forward();
    reducer_->prepare_for_backward({});
    run();
    reducer_->check_finalized();
  });
}

}  // namespace strobe::train
