#include "clip/model/text_layout.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "strobe/types.h"

namespace strobe::clip {
namespace {

void check_lengths(const at::Tensor& ids, const at::Tensor& lengths) {
  const bool fits =
      lengths.is_cpu() && lengths.scalar_type() == at::kLong && lengths.dim() == 1 && lengths.size(0) == ids.size(0);
  if (!fits) {
    throw Error(fmt::format("text encoder: lengths: expected {} of int64 on the CPU, found {} of {} on {}", ids.size(0),
                            lengths.numel(), toString(lengths.scalar_type()), lengths.device().str()));
  }
  if (lengths.numel() == 0) return;
  const auto least = lengths.min().item<int64_t>(), most = lengths.max().item<int64_t>();
  if (least < 1 || most > ids.size(1)) {
    throw Error(fmt::format("text encoder: lengths: expected 1 to {}, found {} to {}", ids.size(1), least, most));
  }
}

}  // namespace

at::Tensor count_tokens(const at::Tensor& ids) { return ids.ne(0).sum(1).clamp_min(1); }

TextLayout TextLayout::padded(const at::Tensor& ids, const at::Tensor& lengths, bool skip_padded_queries) {
  TextLayout layout;
  layout.ids_ = ids;
  layout.longest_ = ids.size(1);
  layout.skip_padded_queries_ = skip_padded_queries;
  if (lengths.defined()) check_lengths(ids, lengths);
  const at::Tensor counted = lengths.defined() ? lengths : count_tokens(ids);
  layout.lengths_ = counted.to(ids.options().dtype(at::kInt), /*non_blocking=*/true);
  return layout;
}

TextLayout TextLayout::packed(const at::Tensor& ids, const at::Tensor& lengths) {
  check_lengths(ids, lengths);
  const auto total = lengths.sum().item<int64_t>();
  const at::Tensor counts = lengths.to(ids.device(), /*non_blocking=*/true);
  const at::Tensor ends = counts.cumsum(0), starts = ends - counts;
  // Given the total, the device need not be asked for it.
  const at::Tensor text = at::repeat_interleave(counts, total);
  TextLayout layout;
  layout.positions_ = at::arange(total, ids.options()) - starts.index_select(0, text);
  layout.ids_ = ids.flatten().index_select(0, text * ids.size(1) + layout.positions_);
  layout.longest_ = lengths.numel() == 0 ? 0 : lengths.max().item<int64_t>();
  layout.cu_seqlens_ = at::cat({at::zeros({1}, ends.options()), ends}).to(at::kInt);
  layout.cu_first_ = at::arange(ids.size(0) + 1, ids.options().dtype(at::kInt));
  layout.starts_ = starts;
  return layout;
}

at::Tensor TextLayout::at_positions(const at::Tensor& table) const {
  return is_packed() ? at::embedding(table, positions_) : table;
}

at::Tensor TextLayout::first(const at::Tensor& hidden) const {
  return is_packed() ? hidden.index_select(0, starts_) : hidden.select(1, 0);
}

void TextLayout::hide_padding(ops::AttentionOptions& options) const {
  if (is_packed()) {
    options.cu_seqlens_q = cu_seqlens_;
    options.cu_seqlens_k = cu_seqlens_;
    options.max_seqlen_q = longest_;
    options.max_seqlen_k = longest_;
  } else {
    options.key_lengths = lengths_;
    if (skip_padded_queries_) options.query_lengths = lengths_;
  }
}

void TextLayout::hide_padding_from_first(ops::AttentionOptions& options) const {
  if (is_packed()) {
    options.cu_seqlens_q = cu_first_;
    options.cu_seqlens_k = cu_seqlens_;
    options.max_seqlen_q = 1;
    options.max_seqlen_k = longest_;
  } else {
    options.key_lengths = lengths_;
  }
}

}  // namespace strobe::clip
