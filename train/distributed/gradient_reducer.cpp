#include "train/distributed/gradient_reducer.h"

#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/empty_strided.h>
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

#include "strobe/types.h"
#include "train/device.h"

namespace strobe::train {
namespace {

// Every transfer slows down the products that run when it begins, so that there are to be few; but nothing hides the
// last one.
constexpr int64_t kBucketBytes = int64_t{100} << 20;
constexpr int64_t kLastBucketBytes = int64_t{16} << 20;
constexpr int64_t kSmallBytes = int64_t{256} << 10;  // up to here a gradient is cheaper to copy than to send by itself
constexpr int64_t kAlignment = 64;                   // elements: each begins where wide loads may

int64_t aligned(int64_t elements) { return (elements + kAlignment - 1) / kAlignment * kAlignment; }

int64_t bytes_of(const at::Tensor& tensor) { return static_cast<int64_t>(tensor.nbytes()); }

/// `gradient` with the strides of `place` where they mean the same elements, as strides of dimensions of size 1 do not
/// matter: the gradients of 1x1 convolutions have others than their weights, and equal strides are copied together.
at::Tensor laid_out_as(const at::Tensor& place, const at::Tensor& gradient) {
  for (int64_t d = 0; d < place.dim(); ++d) {
    if (place.size(d) != 1 && place.stride(d) != gradient.stride(d)) return gradient;
  }
  return gradient.as_strided(place.sizes(), place.strides());
}

/// Gradients that travel together: the large ones where backward has put them, the small ones in one vector.
class Bucket {
 public:
  int64_t bytes() const { return bytes_; }
  bool takes(const at::Tensor& parameter) const {
    return parameters_.empty() || parameter.scalar_type() == parameters_.front().scalar_type();
  }

  void add(const at::Tensor& parameter) {
    parameters_.push_back(parameter);
    bytes_ += bytes_of(parameter);
  }

  void allocate() {
    int64_t elements = 0;
    for (const at::Tensor& parameter : parameters_) elements += is_small(parameter) ? aligned(parameter.numel()) : 0;
    small_ = at::zeros({elements}, parameters_.front().options().requires_grad(false));
    int64_t offset = 0;
    for (const at::Tensor& parameter : parameters_) {
      if (!is_small(parameter)) continue;
      places_.push_back(small_.as_strided(parameter.sizes(), parameter.strides(), offset));
      offset += aligned(parameter.numel());
    }
  }

  void begin() { missing_ = parameters_.size(); }
  void count() { --missing_; }
  bool is_full() const { return missing_ == 0; }

  /// The gradients that are there, zeros for the others. `latest` is the one that autograd still holds too, if any.
  void send(c10d::ProcessGroup& group, const at::Tensor& latest) {
    std::vector<at::Tensor> sums, from, to;
    if (small_.numel() > 0) sums.push_back(small_);
    std::size_t small = 0;
    for (at::Tensor& parameter : parameters_) {
      at::Tensor& gradient = parameter.mutable_grad();
      const at::Tensor place =
          is_small(parameter) ? places_[small++] : place_of(parameter, parameter.is_same(latest) ? 2 : 1);
      if (!gradient.defined()) {
        place.zero_();
      } else if (!gradient.is_alias_of(place)) {
        from.push_back(laid_out_as(place, gradient));
        to.push_back(place);
      }
      gradient = place;
      if (!is_small(parameter)) sums.push_back(place);
    }
    if (!from.empty()) at::_foreach_copy_(to, from);
    work_ = group.allreduce_coalesced(sums);
  }

  void receive() { std::exchange(work_, {})->wait(); }

 private:
  static bool is_small(const at::Tensor& parameter) { return bytes_of(parameter) <= kSmallBytes; }

  /// Where a large gradient is summed: in its own memory, unless that has more than these holders, which may be about
  /// to read it, or gradients of other parameters in it.
  static at::Tensor place_of(const at::Tensor& parameter, std::size_t holders) {
    const at::Tensor& gradient = parameter.grad();
    if (gradient.defined() && gradient.storage().use_count() <= holders) {
      at::Tensor place = laid_out_as(parameter, gradient);
      if (place.strides() == parameter.strides()) return place;
    }
    return at::empty_strided(parameter.sizes(), parameter.strides(), parameter.options().requires_grad(false));
  }

  std::vector<at::Tensor> parameters_;
  int64_t bytes_ = 0;
  at::Tensor small_;                // [elements]
  std::vector<at::Tensor> places_;  // parts of it, laid out as the small parameters
  std::size_t missing_ = 0;         // of the present backward
  c10::intrusive_ptr<c10d::Work> work_;
};

}  // namespace

/// In the order of the parameters; the last is sent first, as backward finds the gradients.
class GradientReducer::Buckets {
 public:
  Buckets(const NamedTensors& parameters, c10::intrusive_ptr<c10d::ProcessGroup> group)
      : parameters_(parameters), group_(std::move(group)), bucket_of_(parameters.size()) {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const at::Tensor& parameter = parameters[i].second;
      const int64_t limit = buckets_.size() <= 1 ? kLastBucketBytes : kBucketBytes;
      if (buckets_.empty() || buckets_.back().bytes() >= limit || !buckets_.back().takes(parameter)) {
        buckets_.emplace_back();
      }
      buckets_.back().add(parameter);
      bucket_of_[i] = buckets_.size() - 1;
    }
    for (Bucket& bucket : buckets_) bucket.allocate();
  }

  /// From here on a bucket is sent as soon as it and those after it are full.
  void begin() {
    for (Bucket& bucket : buckets_) bucket.begin();
    unsent_ = buckets_.size();
    sends_ = true;
  }

  /// The gradient of a parameter is complete.
  void ready(std::size_t parameter) {
    if (!sends_) return;
    buckets_[bucket_of_[parameter]].count();
    while (unsent_ > 0 && buckets_[unsent_ - 1].is_full()) send_next(parameters_[parameter].second);
  }

  /// Sends what is left and puts all sums into the current stream's order.
  void finish() {
    sends_ = false;
    try {
      while (unsent_ > 0) send_next({});
    } catch (const std::exception& error) {
      if (!is_out_of_memory(error)) throw;
      // Not an update that all skip: the others wait for this process's gradients.
      throw Error("data parallel: no memory for gradients that others wait for");
    }
    for (Bucket& bucket : buckets_) bucket.receive();
  }

  void abandon() { sends_ = false; }

 private:
  void send_next(const at::Tensor& latest) {
    const at::NoGradGuard no_grad;
    buckets_[unsent_ - 1].send(*group_, latest);
    --unsent_;
  }

  NamedTensors parameters_;
  c10::intrusive_ptr<c10d::ProcessGroup> group_;
  std::vector<Bucket> buckets_;
  std::vector<std::size_t> bucket_of_;  // by parameter
  std::size_t unsent_ = 0;
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
