#include "train/step_graphs.h"

#include <c10/util/Exception.h>

#ifdef STROBE_CUDA
#include <ATen/autocast_mode.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <map>
#include <utility>
#endif

namespace strobe::train {

#ifdef STROBE_CUDA

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::size_t kMostGraphs = 256;  // a graph of a thousand kernels takes some megabytes

/// A loss whose gradients are known already.
struct KnownGradients : torch::autograd::Function<KnownGradients> {
  static at::Tensor forward(AutogradContext* context, at::TensorList /*parameters*/, const at::Tensor& loss,
                            const std::vector<at::Tensor>& gradients) {
    context->saved_data["gradients"] = gradients;
    return loss.clone();
  }
  static variable_list backward(AutogradContext* context, variable_list upstream) {
    variable_list results = at::_foreach_mul(context->saved_data["gradients"].toTensorVector(), upstream[0]);
    results.emplace_back();  // the loss's
    results.emplace_back();  // the gradients'
    return results;
  }
};

variable_list differentiate(const at::Tensor& loss, const variable_list& parameters) {
  // As everywhere, the backward runs outside of autocast.
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  return torch::autograd::grad({loss}, parameters);
}

}  // namespace

class StepGraphs::Impl {
 public:
  explicit Impl(Tensors parameters) : parameters_(std::move(parameters)), pool_(at::cuda::graph_pool_handle()) {
    const c10::DeviceIndex device = parameters_.at(0).device().index();
    if (c10::cuda::getCurrentCUDAStream(device) == c10::cuda::getDefaultCUDAStream(device)) {
      c10::cuda::getCurrentCUDAStream(device).synchronize();
      c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device));
    }
  }

  at::Tensor loss(const Shape& shape, const Tensors& inputs, const Compute& compute) {
    const auto found = graphs_.find(shape);
    if (found == graphs_.end()) {
      if (graphs_.size() < kMostGraphs) graphs_.emplace(shape, nullptr);
      return compute(inputs);
    }
    if (!found->second) found->second = record(inputs, compute);
    return replay(*found->second, inputs);
  }

 private:
  struct Recording {
    at::cuda::CUDAGraph graph;
    Tensors inputs;
  };

  std::unique_ptr<Recording> record(const Tensors& inputs, const Compute& compute) {
    prepare_results();
    auto recording = std::make_unique<Recording>();
    for (const at::Tensor& input : inputs) recording->inputs.push_back(input.clone());
    // A cast from before would be taken for one of this graph.
    at::autocast::clear_cache();
    // Other threads may go on with what cannot be recorded.
    recording->graph.capture_begin(pool_, cudaStreamCaptureModeThreadLocal);
    try {
      const at::Tensor loss = compute(recording->inputs);
      loss_.copy_(loss.detach());
      at::_foreach_copy_(gradients_, differentiate(loss, parameters_));
    } catch (...) {
      abandon(recording->graph);
      throw;
    }
    at::autocast::clear_cache();
    recording->graph.capture_end();
    return recording;
  }

  /// After an error the recording is broken, and ending it fails too.
  static void abandon(at::cuda::CUDAGraph& graph) {
    at::autocast::clear_cache();
    try {
      graph.capture_end();
    } catch (const c10::Error&) {
    }
  }

  /// What all graphs write to.
  void prepare_results() {
    if (loss_.defined()) return;
    loss_ = at::empty({}, parameters_[0].options().requires_grad(false).dtype(at::kFloat));
    for (const at::Tensor& parameter : parameters_) gradients_.push_back(at::empty_like(parameter.detach()));
  }

  at::Tensor replay(Recording& recording, const Tensors& inputs) {
    {
      const at::AutoGradMode no_grad(false);
      for (std::size_t i = 0; i < inputs.size(); ++i) recording.inputs[i].copy_(inputs[i]);
      recording.graph.replay();
    }
    return KnownGradients::apply(at::TensorList(parameters_), loss_, gradients_);
  }

  Tensors parameters_, gradients_;
  at::Tensor loss_;
  at::cuda::MempoolId_t pool_;
  std::map<Shape, std::unique_ptr<Recording>> graphs_;  // null: seen once
};

bool StepGraphs::available(at::Device device) { return device.is_cuda(); }

#else

class StepGraphs::Impl {
 public:
  explicit Impl(const Tensors&) { TORCH_CHECK(false, "StepGraphs: expected a build with CUDA, found one without"); }
  at::Tensor loss(const Shape&, const Tensors&, const Compute&) { return {}; }
};

bool StepGraphs::available(at::Device) { return false; }

#endif

StepGraphs::StepGraphs(Tensors parameters) : impl_(std::make_unique<Impl>(std::move(parameters))) {}
StepGraphs::~StepGraphs() = default;

at::Tensor StepGraphs::loss(const Shape& shape, const Tensors& inputs, const Compute& compute) {
  return impl_->loss(shape, inputs, compute);
}

}  // namespace strobe::train
