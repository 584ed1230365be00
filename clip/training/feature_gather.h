// The features of all processes as each of them sees them.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "train/distributed/communicator.h"

namespace strobe::clip {

/// [B, D] of this process -> [n*B, D]: its own first, with their gradient, then the others' in the order of their
/// ranks, which are constants. The same B on all processes; for all of them together.
at::Tensor gather_own_first(const at::Tensor& features, const std::shared_ptr<train::Communicator>& ranks);

/// [B, D] -> [n*B, D] in the order of the ranks. The gradient of a process's features is summed over what all processes
/// have made of them; backward too is for all processes together.
at::Tensor gather_with_gradient(const at::Tensor& features, const std::shared_ptr<train::Communicator>& ranks);

/// The same values; the gradient `factor` times as large.
at::Tensor scale_gradient(const at::Tensor& x, double factor);

}  // namespace strobe::clip
