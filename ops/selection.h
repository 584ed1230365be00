// Products with probabilities where NaN or infinity may stand in what some rows see and others do not (the future under
// a causal mask): 0 times NaN is NaN, so a hidden pair must be left out, not multiplied by its probability of 0.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/visibility.h"

namespace strobe::ops {

/// scale * a b of [X, M, K] and [X, K, N] in one pass.
at::Tensor scaled_product(const at::Tensor& a, const at::Tensor& b, double scale);

class Selection {
 public:
  /// Plain products.
  Selection() = default;
  /// Products over the visible pairs alone.
  Selection(const Visibility& visible, const AttentionSizes& sizes);

  /// Whether plain products may have gone wrong: some row sees what another does not, and the results are not all
  /// finite. Only the CPU looks: elsewhere the question would synchronise, and there NaN in a key reaches every row of
  /// its head.
  static bool needed(const Visibility& visible, at::TensorList results);

  /// x [B, Hq, Nq, Nk] becomes 0 where hidden.
  void clear_hidden(at::Tensor& x) const;

  /// scale * a x and scale * a^T x for a folded like the scores, [B * Hk, G * Nq, Nk], over the visible pairs.
  at::Tensor product(const at::Tensor& a, const at::Tensor& x, double scale = 1) const;
  at::Tensor transposed_product(const at::Tensor& a, const at::Tensor& x, double scale = 1) const;

 private:
  at::Tensor hidden_;  // [B, Hq, Nq, Nk], or undefined
};

}  // namespace strobe::ops
