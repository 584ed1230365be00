#include "ops/varlen.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/searchsorted.h>

namespace strobe::ops {

PaddedLayout::PaddedLayout(const at::Tensor& cu_seqlens, int64_t total, int64_t longest)
    : batch_(cu_seqlens.size(0) - 1), total_(total), longest_(longest) {
  const at::Tensor cu = cu_seqlens.to(at::kLong);
  starts_ = cu.slice(0, 0, batch_);
  lengths_ = cu.slice(0, 1).sub(starts_);
  const at::Tensor token = at::arange(total, cu.options());
  // The number of sequences that end at or before the token.
  sequence_ = at::searchsorted(cu.slice(0, 1).contiguous(), token, /*out_int32=*/false, /*right=*/true);
  valid_ = sequence_.lt(batch_);
}

at::Tensor PaddedLayout::pad(const at::Tensor& tokens) const {
  at::DimVector shape{batch_, longest_};
  shape.append(tokens.sizes().begin() + 1, tokens.sizes().end());
  if (total_ == 0) return at::full(shape, 0, tokens.options());
  const at::Tensor row = at::arange(longest_, starts_.options());
  const at::Tensor index = starts_.unsqueeze(1).add(row).clamp_max(total_ - 1);
  return tokens.index_select(0, index.flatten()).view(shape);
}

at::Tensor PaddedLayout::unpad(const at::Tensor& padded, double fill) const {
  at::DimVector shape{total_};
  shape.append(padded.sizes().begin() + 2, padded.sizes().end());
  if (batch_ == 0 || longest_ == 0 || total_ == 0) return at::full(shape, fill, padded.options());
  const at::Tensor sequence = sequence_.clamp_max(batch_ - 1);
  const at::Tensor row = at::arange(total_, starts_.options()).sub(starts_.index_select(0, sequence));
  const at::Tensor index = sequence.mul(longest_).add(row.clamp_max(longest_ - 1));
  at::DimVector mask_shape(shape.size(), 1);
  mask_shape[0] = total_;
  return padded.flatten(0, 1).index_select(0, index).masked_fill_(valid_.logical_not().view(mask_shape), fill);
}

}  // namespace strobe::ops
