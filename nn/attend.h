// The attention operators on what projections give: the heads one after another in the last dimension.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "nn/sequences.h"
#include "ops/attention.h"

namespace strobe::nn {

/// `dropout` of the attention probabilities; deterministic, so that two runs from one seed agree bit for bit on every
/// device.
ops::AttentionOptions attention_options(const std::string& attn_type, double dropout, const Sequences& queries = {},
                                        const Sequences& keys = {});

/// [..., heads * D] -> [..., heads, D], a view.
at::Tensor split_heads(const at::Tensor& x, int64_t heads);

/// qkv [..., 3 width]: queries, keys, values -> [..., width].
at::Tensor attend(const at::Tensor& qkv, int64_t heads, const ops::AttentionOptions& options);

/// q [..., width], kv [..., 2 width]: keys, values -> like q.
at::Tensor attend(const at::Tensor& q, const at::Tensor& kv, int64_t heads, const ops::AttentionOptions& options);

}  // namespace strobe::nn
