// The dropout seed of a call.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/attention.h"

namespace strobe::ops {

/// [2] int64 {seed, offset} on `like`'s device: a copy of options.rng_state, or drawn from torch's generator of that
/// device. Empty without dropout. On CUDA ATen's own kernel draws it, through philox_cuda_state, so that each replay of
/// a captured graph draws anew.
at::Tensor draw_rng_state(const AttentionOptions& options, const at::Tensor& like);

/// The state's two words, or null without dropout. The tensor must outlive the pointer.
const uint64_t* rng_words(const at::Tensor& rng_state);

}  // namespace strobe::ops
