// Backward with the gradients summed over all processes while it still runs.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "train/distributed/communicator.h"

namespace c10d {
class Reducer;
}

namespace strobe::train {

/// Li et al. 2020, "PyTorch Distributed: Experiences on Accelerating Data Parallel Training": gradients go into buckets
/// of 25 MiB that are reduced as soon as they are full, while backward computes those of the layers before. The sum is
/// taken, not the mean: the caller divides by what the losses of all processes are counted by.
class GradientReducer {
 public:
  /// Trainable parameters with their names, each once and in the same order on every process. Must go before
  /// `communicator`.
  GradientReducer(const std::vector<std::pair<std::string, at::Tensor>>& parameters, Communicator& communicator);
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// Adds the gradients of `loss` to those of the parameters; an undefined loss adds zeros: a process that has no batch
  /// where others have one. With `reduce`, which is the same everywhere, the gradients hold the sums over all processes
  /// afterwards; without, nothing is said. Throws strobe::Error naming a lost rank.
  void backward(const at::Tensor& loss, bool reduce);

 private:
  Communicator& communicator_;
  std::vector<at::Tensor> parameters_;
  std::unique_ptr<c10d::Reducer> reducer_;
};

}  // namespace strobe::train
