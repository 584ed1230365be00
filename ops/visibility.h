// Who sees whom, as boolean tensors, for attention that materialises its scores.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/attention.h"
#include "ops/checks.h"

namespace strobe::ops {

/// Undefined tensors hide nothing. Every extent may be 1 and then broadcasts.
struct Visibility {
  at::Tensor hidden;            // [B, 1, Nq, Nk]: scores that take no part, except in hidden rows
  at::Tensor hidden_rows;       // [B, Nq]: rows that see no key or lie beyond their length
  at::Tensor hidden_keys;       // [B, Nk]: keys that no row sees
  bool differs_by_row = false;  // some row may see a key that another, which is not hidden, does not
};

/// lengths_q and lengths_k are [B] in varlen, where each sequence has its own diagonal, and undefined in the dense
/// layout.
Visibility visibility(const AttentionOptions& options, const AttentionSizes& sizes, const at::Tensor& lengths_q,
                      const at::Tensor& lengths_k, at::Device device);

}  // namespace strobe::ops
