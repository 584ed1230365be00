#include "ops/visibility.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/logical_or.h>

#include <algorithm>

namespace strobe::ops {
namespace {

at::Tensor positions(int64_t count, at::Device device) {
  return at::arange(count, at::TensorOptions().dtype(at::kLong).device(device));
}

/// [B] -> [B, 1, 1, 1]
at::Tensor per_sequence(const at::Tensor& lengths) { return lengths.to(at::kLong).view({-1, 1, 1, 1}); }

void hide(at::Tensor& hidden, const at::Tensor& more) {
  hidden = hidden.defined() ? at::logical_or(hidden, more) : more;
}

}  // namespace

Visibility visibility(const AttentionOptions& options, const AttentionSizes& sizes, const at::Tensor& lengths_q,
                      const at::Tensor& lengths_k, at::Device device) {
  const bool varlen = lengths_q.defined();
  const bool all_visible = !varlen && !options.causal && options.window_left < 0 && options.window_right < 0 &&
                           !options.query_lengths && !options.key_lengths;
  if (all_visible) return {};
  const at::Tensor i = positions(sizes.seqlen_q, device).view({1, 1, -1, 1});
  const at::Tensor j = positions(sizes.seqlen_k, device).view({1, 1, 1, -1});
  const auto bottom_right = [&] {  // the column of row i's diagonal
    return varlen ? i.add(per_sequence(lengths_k)).sub(per_sequence(lengths_q))
                  : i.add(sizes.seqlen_k - sizes.seqlen_q);
  };
  const int64_t unlimited = sizes.seqlen_q + sizes.seqlen_k;  // a wider window hides nothing and must not overflow

  at::Tensor hidden;
  if (varlen) {
    hide(hidden, i.ge(per_sequence(lengths_q)));
    hide(hidden, j.ge(per_sequence(lengths_k)));
  }
  if (options.query_lengths) hide(hidden, i.ge(per_sequence(*options.query_lengths)));
  if (options.key_lengths) hide(hidden, j.ge(per_sequence(*options.key_lengths)));
  const bool some_hidden_from_all = hidden.defined() || options.window_left >= 0 || options.window_right >= 0 ||
                                    (options.causal && sizes.seqlen_q > sizes.seqlen_k);
  if (options.causal) {
    hide(hidden, j.gt(bottom_right()));
  } else if (options.window_right >= 0) {
    hide(hidden, j.gt(bottom_right().add(std::min(options.window_right, unlimited))));
  }
  if (options.window_left >= 0) hide(hidden, j.lt(bottom_right().sub(std::min(options.window_left, unlimited))));

  Visibility result;
  result.differs_by_row = options.causal || options.window_left >= 0 || options.window_right >= 0;
  if (some_hidden_from_all) {
    const at::Tensor rows = hidden.all(/*dim=*/-1, /*keepdim=*/true), keys = hidden.all(/*dim=*/-2);
    result.hidden_rows = rows.squeeze(-1).squeeze(1);
    result.hidden_keys = keys.squeeze(1);
    hidden = at::logical_and(hidden, rows.logical_not());
  }
  result.hidden = hidden;
  return result;
}

}  // namespace strobe::ops
