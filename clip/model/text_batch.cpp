#include "clip/model/text_batch.h"

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

TextBatch padded_texts(const at::Tensor& ids, const at::Tensor& lengths, bool skip_padded_queries) {
  if (lengths.defined()) check_lengths(ids, lengths);
  const at::Tensor counted = lengths.defined() ? lengths : count_tokens(ids);
  const at::Tensor on_device = counted.to(ids.options().dtype(at::kInt), /*non_blocking=*/true);
  TextBatch batch;
  batch.ids = ids;
  batch.keys.lengths = on_device;
  if (skip_padded_queries) batch.queries.lengths = on_device;
  return batch;
}

TextBatch packed_texts(const at::Tensor& ids, const at::Tensor& lengths) {
  check_lengths(ids, lengths);
  const auto total = lengths.sum().item<int64_t>();
  const at::Tensor counts = lengths.to(ids.device(), /*non_blocking=*/true);
  const at::Tensor ends = counts.cumsum(0), starts = ends - counts;
  // Given the total, the device need not be asked for it.
  const at::Tensor text = at::repeat_interleave(counts, std::optional<int64_t>(total));
  TextBatch batch;
  batch.starts = starts;
  batch.keys.positions = at::arange(total, ids.options()) - starts.index_select(0, text);
  batch.keys.cu_seqlens = at::cat({at::zeros({1}, ends.options()), ends}).to(at::kInt);
  batch.keys.longest = lengths.numel() == 0 ? 0 : lengths.max().item<int64_t>();
  batch.ids = ids.flatten().index_select(0, text * ids.size(1) + batch.keys.positions);
  batch.queries = batch.keys;
  batch.first.cu_seqlens = at::arange(ids.size(0) + 1, ids.options().dtype(at::kInt));
  batch.first.longest = 1;
  return batch;
}

at::Tensor TextBatch::at_positions(const at::Tensor& table) const {
  return packed() ? at::embedding(table, keys.positions) : table;
}

at::Tensor TextBatch::first_of(const at::Tensor& hidden) const {
  return packed() ? hidden.index_select(0, starts) : hidden.select(1, 0);
}

}  // namespace strobe::clip
