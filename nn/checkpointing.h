// Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174): memory for time.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace strobe::nn {

using Block = std::function<at::Tensor(const at::Tensor&)>;

/// block(x), of which only x is kept: the backward computes the block again, from the same states of torch's generators
/// (the CPU's and x's device's) and the same autocast region, so that the gradients are those of a plain call bit for
/// bit. `parameters` are those that the block uses; what the block refers to must live until the backward.
///
/// Gradients of the parameters are results of this one step of the backward, not of a backward within: they reach their
/// leaves like all others, so what hangs on their accumulation (c10d::Reducer) runs once, and only when the gradient is
/// there. A hook of a parameter itself (register_hook) sees the block's gradient within and the sum, so twice.
at::Tensor checkpoint(const Block& block, const at::Tensor& x, const std::vector<at::Tensor>& parameters);

}  // namespace strobe::nn
