// The features of all processes as each of them sees them.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "train/distributed/communicator.h"

namespace strobe::clip {

/// On its way from when it is made: a tower can be computed meanwhile.
class FeatureGather {
 public:
  /// [B, D], the same B on all processes; for all of them together.
  FeatureGather(const at::Tensor& features, std::shared_ptr<train::Communicator> ranks);

  /// [n*B, D] in the order of the ranks, constants.
  const at::Tensor& values();

  /// `own`, the features that it was made of -> [n*B, D]: these first, with their gradient, then the others' in the
  /// order of their ranks, which are constants.
  at::Tensor own_first(const at::Tensor& own);

  /// -> [n*B, D] in the order of the ranks. The gradient of a process's features is summed over what all processes have
  /// made of them; backward too is for all processes together.
  at::Tensor with_gradient(const at::Tensor& own);

 private:
  std::shared_ptr<train::Communicator> ranks_;
  train::Communicator::Gathering gathering_;
  at::Tensor values_;  // once they are there
};

/// The same values; the gradient `factor` times as large.
at::Tensor scale_gradient(const at::Tensor& x, double factor);

}  // namespace strobe::clip
