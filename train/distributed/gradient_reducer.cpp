#include "train/distributed/gradient_reducer.h"

#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/csrc/autograd/variable.h>

#include <exception>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <utility>

#include "train/device.h"

namespace strobe::train {
namespace {

constexpr int64_t kBucketBytes = int64_t{25} << 20;
constexpr int64_t kFirstBucketBytes = int64_t{1} << 20;  // the first transfer is to begin early
constexpr int64_t kAlignment = 64;                       // elements: each gradient begins where wide loads may

int64_t aligned(int64_t elements) { return (elements + kAlignment - 1) / kAlignment * kAlignment; }

/// `gradient` with the strides of `place` where they mean the same elements, as strides of dimensions of size 1 do not
/// matter: the gradients of 1x1 convolutions have others than their weights, and equal strides are copied together.
at::Tensor laid_out_as(const at::Tensor& place, const at::Tensor& gradient) {
  for (int64_t d = 0; d < place.dim(); ++d) {
    if (place.size(d) != 1 && place.stride(d) != gradient.stride(d)) return gradient;
  }
  return gradient.as_strided(place.sizes(), place.strides());
}

/// Gradients that travel together.
struct Bucket {
  std::vector<at::Tensor> parameters;
  int64_t elements = 0;               // with the gaps between them
  at::Tensor sums;                    // [elements]
  std::vector<at::Tensor> gradients;  // parts of it, each laid out as its parameter
  std::size_t missing = 0;            // of the present backward
  c10::intrusive_ptr<c10d::Work> work;

  bool takes(const at::Tensor& parameter, int64_t bytes) const {
    const at::Tensor& first = parameters.front();
    return elements * static_cast<int64_t>(first.element_size()) < bytes &&
           parameter.scalar_type() == first.scalar_type();
  }

  void add(const at::Tensor& parameter) {
    parameters.push_back(parameter);
    elements += aligned(parameter.numel());
  }

  void allocate() {
    sums = at::zeros({elements}, parameters.front().options().requires_grad(false));
    int64_t offset = 0;
    for (const at::Tensor& parameter : parameters) {
      gradients.push_back(sums.as_strided(parameter.sizes(), parameter.strides(), offset));
      offset += aligned(parameter.numel());
    }
  }

  /// Takes over the gradients that are there; zeros are for the others.
  void fill() {
    std::vector<at::Tensor> from, to;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      at::Tensor& gradient = parameters[i].mutable_grad();
      if (gradient.defined()) {
        from.push_back(laid_out_as(gradients[i], gradient));
        to.push_back(gradients[i]);
      } else {
        gradients[i].zero_();
      }
      gradient = gradients[i];
    }
    if (!from.empty()) at::_foreach_copy_(to, from);
  }
};

}  // namespace

/// In the order in which they are sent: from the last parameter to the first, as backward finds their gradients.
class GradientReducer::Buckets {
 public:
  Buckets(const NamedTensors& parameters, c10::intrusive_ptr<c10d::ProcessGroup> group)
      : group_(std::move(group)), bucket_of_(parameters.size()) {
    for (std::size_t i = parameters.size(); i-- > 0;) {
      const at::Tensor& parameter = parameters[i].second;
      const int64_t bytes = buckets_.size() == 1 ? kFirstBucketBytes : kBucketBytes;
      if (buckets_.empty() || !buckets_.back().takes(parameter, bytes)) buckets_.emplace_back();
      buckets_.back().add(parameter);
      bucket_of_[i] = buckets_.size() - 1;
    }
    for (Bucket& bucket : buckets_) bucket.allocate();
  }

  /// From here on a bucket is sent as soon as it and those before it are full.
  void begin() {
    for (Bucket& bucket : buckets_) bucket.missing = bucket.parameters.size();
    sent_ = 0;
    sends_ = true;
  }

  /// The gradient of a parameter is complete.
  void ready(std::size_t parameter) {
    if (!sends_) return;
    --buckets_[bucket_of_[parameter]].missing;
    while (sent_ < buckets_.size() && buckets_[sent_].missing == 0) send_next();
  }

  /// Sends what is left and puts all sums into the current stream's order.
  void finish() {
    while (sent_ < buckets_.size()) send_next();
    sends_ = false;
    for (Bucket& bucket : buckets_) std::exchange(bucket.work, {})->wait();
  }

  void abandon() { sends_ = false; }

 private:
  void send_next() {
    const at::NoGradGuard no_grad;
    Bucket& bucket = buckets_[sent_++];
    bucket.fill();
    std::vector<at::Tensor> tensors = {bucket.sums};
    bucket.work = group_->allreduce(tensors);
  }

  c10::intrusive_ptr<c10d::ProcessGroup> group_;
  std::vector<Bucket> buckets_;
  std::vector<std::size_t> bucket_of_;  // by parameter
  std::size_t sent_ = 0;
  bool sends_ = false;
};

/// After the accumulation of a parameter's gradient, which may outlive the reducer.
class GradientReducer::ReadyHook : public torch::autograd::FunctionPostHook {
 public:
  ReadyHook(std::weak_ptr<Buckets> buckets, std::size_t parameter)
      : buckets_(std::move(buckets)), parameter_(parameter) {}
  torch::autograd::variable_list operator()(const torch::autograd::variable_list& outputs,
                                            const torch::autograd::variable_list&) override {
    if (const auto buckets = buckets_.lock()) buckets->ready(parameter_);
    return outputs;
  }

 private:
  std::weak_ptr<Buckets> buckets_;
  std::size_t parameter_;
};

GradientReducer::GradientReducer(const NamedTensors& parameters, Communicator& communicator)
    : communicator_(communicator) {
  if (communicator.size() == 1) return;
  buckets_ = std::make_shared<Buckets>(parameters, communicator.process_group());
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    accumulators_.push_back(torch::autograd::impl::grad_accumulator(parameters[i].second));
    accumulators_.back()->add_post_hook(std::make_unique<ReadyHook>(buckets_, i));
  }
}

GradientReducer::~GradientReducer() = default;

void GradientReducer::backward(const at::Tensor& loss) { torch::autograd::backward({loss}, {}); }

void GradientReducer::backward_and_sum(at::Tensor loss) {
  if (!buckets_) {
    if (loss.defined()) backward(loss);
    return;
  }
  std::exception_ptr out_of_memory;
  communicator_.guarded([&] {
    buckets_->begin();
    try {
      if (loss.defined()) backward(loss);
    } catch (const std::exception& error) {
      buckets_->abandon();
      if (!is_out_of_memory(error)) throw;
      out_of_memory = std::current_exception();
      loss.reset();  // frees what its graph holds
    }
    buckets_->finish();
  });
  if (out_of_memory) std::rethrow_exception(out_of_memory);
}

}  // namespace strobe::train
