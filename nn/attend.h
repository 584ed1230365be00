// The attention operators on the products of projections, whose last dimension holds the heads one after the other.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "ops/attention.h"

namespace strobe::clip {

/// Deterministic, so that two runs from one seed agree bit for bit on every device.
ops::AttentionOptions attention_options(const std::string& attn_type);

/// qkv [..., 3 width]: queries, keys, values -> [..., width].
at::Tensor attention_of_product(const at::Tensor& qkv, int64_t heads, const ops::AttentionOptions& options);

/// q [..., width], kv [..., 2 width]: keys, values -> like q.
at::Tensor attention_of_products(const at::Tensor& q, const at::Tensor& kv, int64_t heads,
                                 const ops::AttentionOptions& options);

}  // namespace strobe::clip
