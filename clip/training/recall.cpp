#include "clip/training/recall.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>

#include "train/precision.h"

namespace strobe::clip {
namespace {

constexpr int64_t kBlock = 2048;  // queries whose similarities are held at once

}  // namespace

Recall recall(const at::Tensor& queries, const at::Tensor& candidates, const at::Tensor& query_of,
              const at::Tensor& candidate_of) {
  // In 16 bits half of the answers would be rounded above their own value and count as better than themselves.
  const train::AutocastGuard fp32(queries.device().type(), train::Precision::kFp32);
  const at::Tensor answers = (queries.index_select(0, query_of) * candidates.index_select(0, candidate_of)).sum(1);
  const at::Tensor best = at::full({queries.size(0)}, -std::numeric_limits<double>::infinity(), answers.options())
                              .scatter_reduce(0, query_of, answers, "amax");
  const at::Tensor better = at::zeros({queries.size(0)}, query_of.options());
  // The products of a block round otherwise than the sums above.
  const at::Tensor bound = best + 1e-6;
  for (int64_t begin = 0; begin < queries.size(0); begin += kBlock) {
    const int64_t count = std::min(kBlock, queries.size(0) - begin);
    const at::Tensor logits = at::matmul(queries.narrow(0, begin, count), candidates.t());
    better.narrow(0, begin, count).copy_(logits.gt(bound.narrow(0, begin, count).unsqueeze(1)).sum(1));
  }
  const at::Tensor asked = better.masked_select(best.isfinite());
  const auto share = [&](int64_t k) { return 100.0 * asked.lt(k).to(at::kDouble).mean().item<double>(); };
  return {share(1), share(5), share(10)};
}

}  // namespace strobe::clip
