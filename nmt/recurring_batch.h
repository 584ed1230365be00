// Batches for StepGraphs: their tensors' sizes are rounded up, so that a few shapes recur.
#pragma once

#include <vector>

#include "nmt/batching.h"

namespace strobe::nmt {

/// As make_batch, but the rows of padded tensors are longer than the longest sentence, up to a multiple of 8, and the
/// packed tokens end with padding, up to a multiple of 256: tokens of no sentence, whose target is kPadId.
Batch make_recurring_batch(const std::vector<EncodedPair>& data, const std::vector<int64_t>& indices,
                           at::Device device);

/// The memory that make_batch laid the batch's tensors out in: ids (int64) and counts (int32).
std::vector<at::Tensor> memory_of(const Batch& batch);

/// The same batch in other memory of the same size.
Batch in_memory(const Batch& batch, const std::vector<at::Tensor>& memory);

}  // namespace strobe::nmt
