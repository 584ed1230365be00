#include "ops/selection.h"

#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/logical_or.h>
#include <ATen/ops/sum.h>

#include <algorithm>
#include <cmath>

namespace strobe::ops {
namespace {

/// A sum takes one pass and is finite only if every term is. One that overflows sends finite tensors the slow way, no
/// more.
bool all_finite(const at::Tensor& t) { return !t.defined() || std::isfinite(at::sum(t, lse_dtype(t)).item<double>()); }

/// sum over n of a[x, m, n] b[x, n, d] where not hidden[x, m, n]: what is not finite enters row by row of b.
at::Tensor selective_product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& hidden) {
  const at::Tensor special = at::isfinite(b).all(-1).logical_not();  // [X, N]
  at::Tensor result = at::bmm(a, b.masked_fill(special.unsqueeze(-1), 0));
  const at::Tensor columns = special.any(0).nonzero().flatten();
  for (int64_t i = 0; i < columns.numel(); ++i) {
    const int64_t n = columns[i].item<int64_t>();
    const at::Tensor left_out = at::logical_or(hidden.select(2, n), special.select(1, n).logical_not().unsqueeze(1));
    const at::Tensor term = a.select(2, n).unsqueeze(-1).mul(b.select(1, n).unsqueeze(1));
    result.add_(term.masked_fill(left_out.unsqueeze(-1), 0));
  }
  return result;
}

}  // namespace

at::Tensor scaled_product(const at::Tensor& a, const at::Tensor& b, double scale) {
  at::Tensor result = at::empty({a.size(0), a.size(1), b.size(2)}, a.options());
  return at::baddbmm_out(result, result, a, b, /*beta=*/0, /*alpha=*/scale);
}

bool Selection::needed(const Visibility& visible, at::TensorList results) {
  return visible.differs_by_row && results.front().is_cpu() && !std::all_of(results.begin(), results.end(), all_finite);
}

Selection::Selection(const Visibility& visible, const AttentionSizes& s) {
  at::Tensor hidden = visible.hidden;
  if (visible.hidden_rows.defined()) hidden = at::logical_or(hidden, visible.hidden_rows.unsqueeze(1).unsqueeze(-1));
  hidden_ = hidden.expand({s.batch, s.num_heads_q, s.seqlen_q, s.seqlen_k});
}

void Selection::clear_hidden(at::Tensor& x) const {
  if (hidden_.defined()) x.masked_fill_(hidden_, 0);
}

at::Tensor Selection::product(const at::Tensor& a, const at::Tensor& x, double scale) const {
  if (!hidden_.defined()) return scaled_product(a, x, scale);
  return selective_product(a, x, hidden_.reshape(a.sizes())).mul_(scale);
}

at::Tensor Selection::transposed_product(const at::Tensor& a, const at::Tensor& x, double scale) const {
  if (!hidden_.defined()) return scaled_product(a.transpose(1, 2), x, scale);
  return selective_product(a.transpose(1, 2), x, hidden_.reshape(a.sizes()).transpose(1, 2)).mul_(scale);
}

}  // namespace strobe::ops
