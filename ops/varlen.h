// Packed sequences <-> a padded batch, without reading any length on the host.
#pragma once

#include <ATen/core/Tensor.h>

namespace strobe::ops {

/// Where the tokens of a varlen tensor lie in a padded batch of `longest` rows a sequence.
class PaddedLayout {
 public:
  /// cu_seqlens [B+1] int32; `total` tokens, of which those at or beyond cu_seqlens[B] belong to no sequence.
  PaddedLayout(const at::Tensor& cu_seqlens, int64_t total, int64_t longest);

  /// [B] int64
  const at::Tensor& lengths() const { return lengths_; }

  /// [total, H, D] -> [B, longest, H, D]; what stands beyond a sequence's length is arbitrary.
  at::Tensor pad(const at::Tensor& tokens) const;

  /// [B, longest, ...] -> [total, ...]; tokens of no sequence get `fill`.
  at::Tensor unpad(const at::Tensor& padded, double fill) const;

 private:
  int64_t batch_, total_, longest_;
  at::Tensor starts_, lengths_;  // [B]
  at::Tensor sequence_, valid_;  // [total]: the token's sequence, and whether it has one
};

}  // namespace strobe::ops
