// Recall of retrieval among features.
#pragma once

#include <ATen/core/Tensor.h>

#include "clip/training/validation.h"

namespace strobe::clip {

/// For each query that has an answer: whether one of its answers is among the k candidates of the largest inner
/// product. A tie counts for the query.
/// queries [Q, D], candidates [C, D]; query query_of[i] has the answer candidate_of[i], both int64 [P], on one device.
Recall recall(const at::Tensor& queries, const at::Tensor& candidates, const at::Tensor& query_of,
              const at::Tensor& candidate_of);

}  // namespace strobe::clip
