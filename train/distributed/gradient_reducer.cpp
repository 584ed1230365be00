#include "train/distributed/gradient_reducer.h"

#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <unordered_map>

#include "train/device.h"

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

/// Notes that the gradient of a parameter is complete.
class ReadyHook : public torch::autograd::FunctionPostHook {
 public:
  ReadyHook(std::shared_ptr<std::vector<char>> is_ready, std::size_t index)
      : is_ready_(std::move(is_ready)), index_(index) {}
  torch::autograd::variable_list operator()(const torch::autograd::variable_list& outputs,
                                            const torch::autograd::variable_list&) override {
    (*is_ready_)[index_] = true;
    return outputs;
  }

 private:
  std::shared_ptr<std::vector<char>> is_ready_;
  std::size_t index_;
};

std::unique_ptr<c10d::Reducer> make_reducer(const std::vector<at::Tensor>& parameters,
                                            std::unordered_map<std::size_t, std::string> names, const Group& group) {
  const std::vector<bool> sparse(parameters.size(), false);
  // One bucket at first; the real ones follow the order in which the first backward finds the gradients (fix_buckets).
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
    : communicator_(communicator), is_ready_(std::make_shared<std::vector<char>>(parameters.size())) {
  if (communicator.size() == 1) return;
  std::unordered_map<std::size_t, std::string> names;
  for (const auto& [name, parameter] : parameters) {
    const std::size_t index = parameters_.size();
    names[index] = name;
    parameters_.push_back(parameter);
    accumulators_.push_back(torch::autograd::impl::grad_accumulator(parameter));
    accumulators_.back()->add_post_hook(std::make_unique<ReadyHook>(is_ready_, index));
  }
  reducer_ = make_reducer(parameters_, std::move(names), communicator.process_group());
  fix_buckets();
}

GradientReducer::~GradientReducer() = default;

/// Lets a backward of zeros find the gradients in the reverse order of the parameters. In which bucket and where in it
/// a gradient lies decides on the order of its sum over three processes or more: would the first real backward fix the
/// buckets, its own sums would be others than those of a run that came there from a checkpoint.
void GradientReducer::fix_buckets() {
  backward_and_sum({});
  for (const at::Tensor& parameter : parameters_) parameter.mutable_grad().reset();
}

void GradientReducer::backward(const at::Tensor& loss) { torch::autograd::backward({loss}, {}); }

void GradientReducer::backward_and_sum(at::Tensor loss) {
  if (!reducer_) {
    if (loss.defined()) backward(loss);
    return;
  }
  std::exception_ptr out_of_memory;
  communicator_.guarded([&] {
    if (reducer_->should_rebuild_buckets()) reducer_->rebuild_buckets();
    reducer_->prepare_for_forward();
    reducer_->prepare_for_backward({});
    std::fill(is_ready_->begin(), is_ready_->end(), false);
    try {
      if (loss.defined()) backward(loss);
    } catch (const std::exception& error) {
      if (!is_out_of_memory(error)) throw;
      out_of_memory = std::current_exception();
      loss.reset();  // frees what its graph holds
    }
    complete_with_zeros();
    reducer_->check_finalized();
  });
  if (out_of_memory) std::rethrow_exception(out_of_memory);
}

/// Gives the Reducer the parameters that this backward has not reached.
void GradientReducer::complete_with_zeros() {
  std::vector<at::Tensor> outputs, zeros;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if ((*is_ready_)[i]) continue;
    outputs.push_back(parameters_[i].view_as(parameters_[i]));
    zeros.push_back(at::zeros({}, parameters_[i].options()).expand_as(parameters_[i]));  // takes no memory
  }
  if (!outputs.empty()) torch::autograd::backward(outputs, zeros);
}

}  // namespace strobe::train
