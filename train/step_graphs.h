// Forward and backward of a step as a CUDA graph: where a step is small, the host takes longer to launch its thousand
// kernels one by one than the GPU to run them.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <vector>

namespace strobe::train {

/// Steps whose shapes recur. The first step of a shape is computed as ever, the second is recorded, and from then on it
/// is replayed: the same kernels, the same random numbers, the same bits.
class StepGraphs {
 public:
  using Tensors = std::vector<at::Tensor>;
  using Compute = std::function<at::Tensor(const Tensors& inputs)>;
  using Shape = std::vector<int64_t>;

  /// Whether there are CUDA graphs on this device in this build.
  static bool available(at::Device device);

  /// Of a model with these parameters, all on the present CUDA device. From here on the calling thread works on a
  /// stream of its own, since the default stream cannot be recorded.
  explicit StepGraphs(Tensors parameters);
  ~StepGraphs();

  /// compute(inputs), a 0-d loss, differentiable once in the parameters. Wherever `shape` is the same, the inputs have
  /// the same sizes and compute does the same with them; it depends on every parameter, on nothing else that changes,
  /// and never waits for the device. The gradients of a replayed loss are those of the latest call only.
  at::Tensor loss(const Shape& shape, const Tensors& inputs, const Compute& compute);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace strobe::train
