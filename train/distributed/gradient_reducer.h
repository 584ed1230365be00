// Backward with the gradients summed over all processes while it still runs.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "train/distributed/communicator.h"

namespace c10d {
class Reducer;
}
namespace torch::autograd {
struct Node;
}

namespace strobe::train {

/// Li et al. 2020, "PyTorch Distributed: Experiences on Accelerating Data Parallel Training": gradients go into buckets
/// of 25 MiB that are reduced as soon as they are full, while backward computes those of the layers before. The sum is
/// taken, not the mean: the caller divides by what the losses of all processes are counted by.
class GradientReducer {
 public:
  /// Trainable parameters with their names, each once and in the same order on every process; for all processes
  /// together. Must go before `communicator`.
  GradientReducer(const std::vector<std::pair<std::string, at::Tensor>>& parameters, Communicator& communicator);
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// Adds the gradients of loss() to those of the parameters of this process. Nothing is said to the others.
  void backward(const at::Tensor& loss);

  /// The same, after which the gradients of every process hold the sums over all. All processes call it together; one
  /// that has nothing to add (no batch, or no memory for it) gives an undefined loss and counts as zeros. Parameters
  /// that the loss does not depend on count as zeros too. Where memory runs out, the others get zeros for what is
  /// missing before the error is passed on, so that none of them waits. Throws strobe::Error naming a lost rank.
  void backward_and_sum(at::Tensor loss);

 private:
  void fix_buckets();
  void complete_with_zeros();

  Communicator& communicator_;
  std::vector<at::Tensor> parameters_;
  std::vector<std::shared_ptr<torch::autograd::Node>> accumulators_;  // kept: the hooks live in them
  std::shared_ptr<std::vector<char>> is_ready_;                       // in this backward, by parameter
  std::unique_ptr<c10d::Reducer> reducer_;                            // null: one process
};

}  // namespace strobe::train
