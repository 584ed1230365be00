// Backward with the gradients summed over all processes while it still runs.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "train/distributed/communicator.h"
#include "train/optimizer.h"

namespace torch::autograd {
struct Node;
}

namespace strobe::train {

/// Li et al. 2020, "PyTorch Distributed: Experiences on Accelerating Data Parallel Training": gradients go into buckets
/// that are summed as soon as they are full, while backward computes those of the layers before. Unlike there, large
/// gradients are summed where backward has put them, the last bucket is the small one, and the sum is taken, not the
/// mean: the caller divides by what the losses of all processes are counted by.
///
/// Which gradients share a bucket, and in which order, follows from the parameters alone: over three processes or more
/// it decides on the order of the sums, and a run that goes on from a checkpoint has to sum as before.
class GradientReducer {
 public:
  /// Trainable parameters on one device, each once and in the same order on every process, roughly that in which
  /// forward uses them; for all processes together. Must go before `communicator`.
  GradientReducer(const NamedTensors& parameters, Communicator& communicator);
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// Adds the gradients of loss() to those of the parameters of this process. Nothing is said to the others.
  void backward(const at::Tensor& loss);

  /// The same, after which the gradients of every process hold the sums over all, small ones in memory that the next
  /// call uses again. All processes call it together; one that has nothing to add
  /// (no batch, or no memory for it) gives an undefined loss and counts as zeros. Parameters that the loss does not
  /// depend on count as zeros too. Where memory runs out, the others get zeros for what is missing before the error is
  /// passed on, so that none of them waits. Throws strobe::Error naming a lost rank.
  void backward_and_sum(at::Tensor loss);

 private:
  class Buckets;
  class ReadyHook;

  Communicator& communicator_;
  std::shared_ptr<Buckets> buckets_;                                  // null: one process
  std::vector<std::shared_ptr<torch::autograd::Node>> accumulators_;  // kept: the hooks live in them
};

}  // namespace strobe::train
