#include "nmt/batching.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>

#include <algorithm>
#include <numeric>
#include <string>

#include "nmt/recurring_batch.h"
#include "nmt/shuffle.h"
#include "nmt/vocabulary.h"
#include "strobe/types.h"

namespace strobe::nmt {
namespace {

// Large enough that the lengths in one batch hardly differ, small enough that the sets of sentences that meet in a
// batch change from epoch to epoch.
constexpr std::size_t kBucketSentences = 32768;

// Of recurring batches: a few dozen shapes an epoch, a few percent of padding.
constexpr int64_t kRecurringWidth = 8, kRecurringTokens = 256;

using Indices = std::vector<int64_t>;

int64_t source_length(const EncodedPair& pair) { return static_cast<int64_t>(pair.source.size()); }
/// The decoder sees one token fewer than the sentence has: all but the last, and predicts all but the first.
int64_t target_length(const EncodedPair& pair) {
  return std::max<int64_t>(static_cast<int64_t>(pair.target.size()) - 1, 0);
}

void check(const BatchLimits& limits) {
  if (limits.sentences < 0 || limits.max_tokens < 0 || limits.sentences + limits.max_tokens == 0) {
    throw Error("batches: limits: expected a positive number of sentences or tokens, found " +
                std::to_string(limits.sentences) + " and " + std::to_string(limits.max_tokens));
  }
}

Indices all_indices(const std::vector<EncodedPair>& data) {
  Indices indices(data.size());
  std::iota(indices.begin(), indices.end(), int64_t{0});
  return indices;
}

/// Longest first, so that the batch that needs most memory comes first; equal lengths keep their order.
void sort_by_length(Indices::iterator begin, Indices::iterator end, const std::vector<EncodedPair>& data) {
  std::stable_sort(begin, end, [&](int64_t a, int64_t b) {
    const auto key = [&](int64_t i) { return std::pair(target_length(data[i]), source_length(data[i])); };
    return key(a) > key(b);
  });
}

/// Cuts neighbours into batches within the limits.
void cut(Indices::const_iterator begin, Indices::const_iterator end, const std::vector<EncodedPair>& data,
         const BatchLimits& limits, std::vector<Indices>& batches) {
  Indices batch;
  int64_t longest = 0;
  for (auto it = begin; it != end; ++it) {
    const int64_t length = std::max(source_length(data[*it]), target_length(data[*it]));
    const int64_t count = static_cast<int64_t>(batch.size()) + 1;
    const bool full = (limits.sentences > 0 && count > limits.sentences) ||
                      (limits.max_tokens > 0 && count * std::max(longest, length) > limits.max_tokens);
    if (full && !batch.empty()) {
      batches.push_back(std::move(batch));
      batch.clear();
      longest = 0;
    }
    batch.push_back(*it);
    longest = std::max(longest, length);
  }
  if (!batch.empty()) batches.push_back(std::move(batch));
}

using Lengths = std::vector<int64_t>;

int64_t sum(const Lengths& lengths) { return std::accumulate(lengths.begin(), lengths.end(), int64_t{0}); }
int64_t longest(const Lengths& lengths) {
  return lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
}

/// Host memory that several tensors of one dtype are filled in and that then goes to the device in one copy. Where the
/// device is not the host it is pinned, so that the copy is the device's own work, in the order of its stream.
class Staging {
 public:
  Staging(at::ScalarType dtype, int64_t elements, at::Device device)
      : memory_(at::empty({elements}, at::TensorOptions().dtype(dtype).pinned_memory(!device.is_cpu()))),
        device_(device) {}

  /// The next tensor of this shape, not filled.
  at::Tensor take(at::IntArrayRef shape) {
    const int64_t elements = c10::multiply_integers(shape);
    used_ += elements;
    return memory_.narrow(0, used_ - elements, elements).view(shape);
  }

  /// Moves the tensors, which were taken here.
  void send(std::initializer_list<at::Tensor*> tensors) const {
    if (device_.is_cpu()) return;
    const at::Tensor there = memory_.to(device_, /*non_blocking=*/true);
    for (at::Tensor* tensor : tensors) {
      *tensor = there.narrow(0, tensor->storage_offset(), tensor->numel()).view(tensor->sizes());
    }
  }

 private:
  at::Tensor memory_;
  at::Device device_;
  int64_t used_ = 0;
};

at::Tensor take_lengths(Staging& counts, const Lengths& lengths) {
  at::Tensor tensor = counts.take({static_cast<int64_t>(lengths.size())});
  std::copy(lengths.begin(), lengths.end(), tensor.mutable_data_ptr<int32_t>());
  return tensor;
}

/// How one side of a batch lies: `width` slots a sentence, `tokens` packed.
struct Layout {
  int64_t width = 0, tokens = 0;
};

Layout tight(const Lengths& lengths) { return {longest(lengths), sum(lengths)}; }

/// At least one slot of a row is padding, in which the packed tokens of no sentence stand, and at least one slot of all
/// is not packed: RealTokens::of tells by that whether there is anything to select.
Layout recurring(const Lengths& lengths) {
  const auto rounded_up = [](int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; };
  Layout layout = {rounded_up(longest(lengths) + 1, kRecurringWidth), rounded_up(sum(lengths), kRecurringTokens)};
  if (layout.tokens == layout.width * static_cast<int64_t>(lengths.size())) layout.width += kRecurringWidth;
  return layout;
}

/// `real` gets everything but `longest`.
void take_real_tokens(Staging& ids, Staging& counts, const Lengths& lengths, const Layout& layout, RealTokens& real) {
  real.slots = ids.take({layout.tokens});
  real.sequences.positions = ids.take({layout.tokens});
  real.sequences.cu_seqlens = counts.take({static_cast<int64_t>(lengths.size()) + 1});
  int64_t* slot = real.slots.mutable_data_ptr<int64_t>();
  int64_t* position = real.sequences.positions.mutable_data_ptr<int64_t>();
  int32_t* start = real.sequences.cu_seqlens.mutable_data_ptr<int32_t>();
  *start = 0;
  int64_t row_start = 0;
  for (const int64_t length : lengths) {
    std::iota(slot, slot + length, row_start);
    std::iota(position, position + length, int64_t{0});
    start[1] = start[0] + static_cast<int32_t>(length);
    slot += length;
    position += length;
    ++start;
    row_start += layout.width;
  }
  const int64_t rest = layout.tokens - sum(lengths);
  std::fill_n(slot, rest, layout.width - 1);
  std::fill_n(position, rest, 0);
}

void fill_row(const at::Tensor& padded, int64_t row, std::vector<int64_t>::const_iterator ids, int64_t length) {
  int64_t* begin = padded.mutable_data_ptr<int64_t>() + row * padded.size(1);
  std::fill(std::copy_n(ids, length, begin), begin + padded.size(1), kPadId);
}

}  // namespace

std::vector<Indices> bucket_batches(const std::vector<EncodedPair>& data, const BatchLimits& limits, uint64_t seed,
                                    int64_t epoch) {
  check(limits);
  // The golden ratio's bits keep (seed, epoch + 1) apart from (seed + 1, epoch).
  std::mt19937_64 engine(seed + 0x9E3779B97F4A7C15ull * static_cast<uint64_t>(epoch));
  Indices indices = all_indices(data);
  shuffle(indices, engine);
  std::vector<Indices> batches;
  for (std::size_t start = 0; start < indices.size(); start += kBucketSentences) {
    const auto begin = indices.begin() + start;
    const auto end = indices.begin() + std::min(start + kBucketSentences, indices.size());
    sort_by_length(begin, end, data);
    cut(begin, end, data, limits, batches);
  }
  shuffle(batches, engine);
  return batches;
}

std::vector<Indices> sorted_batches(const std::vector<EncodedPair>& data, const BatchLimits& limits) {
  check(limits);
  Indices indices = all_indices(data);
  sort_by_length(indices.begin(), indices.end(), data);
  std::vector<Indices> batches;
  cut(indices.begin(), indices.end(), data, limits, batches);
  return batches;
}

at::Tensor RealTokens::of(const at::Tensor& padded) const {
  const at::Tensor all = padded.flatten(0, 1);
  return slots.size(0) == all.size(0) ? all : all.index_select(0, slots);
}

namespace {

template <typename LayoutOf>
Batch make_laid_out_batch(const std::vector<EncodedPair>& data, const Indices& indices, at::Device device,
                          const LayoutOf& layout_of) {
  Lengths source, target;
  for (const int64_t i : indices) {
    source.push_back(source_length(data[i]));
    target.push_back(target_length(data[i]));
  }
  const Layout source_layout = layout_of(source), target_layout = layout_of(target);
  const auto size = static_cast<int64_t>(indices.size());
  Batch batch;
  batch.source_tokens = sum(source);
  batch.target_tokens = sum(target);
  batch.source_real.sequences.longest = source_layout.width;
  batch.target_real.sequences.longest = target_layout.width;
  const int64_t source_slots = size * source_layout.width, target_slots = size * target_layout.width;
  Staging ids(at::kLong, source_slots + 2 * target_slots + 2 * (source_layout.tokens + target_layout.tokens), device);
  Staging counts(at::kInt, 2 * size + 2 * (size + 1), device);
  batch.source = ids.take({size, source_layout.width});
  batch.target_in = ids.take({size, target_layout.width});
  batch.target_out = ids.take({size, target_layout.width});
  batch.source_lengths = take_lengths(counts, source);
  batch.target_lengths = take_lengths(counts, target);
  take_real_tokens(ids, counts, source, source_layout, batch.source_real);
  take_real_tokens(ids, counts, target, target_layout, batch.target_real);
  for (int64_t row = 0; row < size; ++row) {
    const EncodedPair& pair = data[indices[row]];
    fill_row(batch.source, row, pair.source.begin(), source[row]);
    fill_row(batch.target_in, row, pair.target.begin(), target[row]);
    fill_row(batch.target_out, row, pair.target.end() - target[row], target[row]);
  }
  ids.send({&batch.source, &batch.target_in, &batch.target_out, &batch.source_real.slots,
            &batch.source_real.sequences.positions, &batch.target_real.slots, &batch.target_real.sequences.positions});
  counts.send({&batch.source_lengths, &batch.target_lengths, &batch.source_real.sequences.cu_seqlens,
               &batch.target_real.sequences.cu_seqlens});
  return batch;
}

}  // namespace

Batch make_batch(const std::vector<EncodedPair>& data, const Indices& indices, at::Device device) {
  return make_laid_out_batch(data, indices, device, tight);
}

Batch make_recurring_batch(const std::vector<EncodedPair>& data, const Indices& indices, at::Device device) {
  return make_laid_out_batch(data, indices, device, recurring);
}

std::vector<at::Tensor> memory_of(const Batch& batch) {
  const auto all_of = [](const at::Tensor& first) {
    const auto elements = static_cast<int64_t>(first.storage().nbytes() / first.element_size());
    return first.as_strided({elements}, {1}, 0);
  };
  return {all_of(batch.source), all_of(batch.source_lengths)};
}

Batch in_memory(const Batch& batch, const std::vector<at::Tensor>& memory) {
  Batch moved = batch;
  const auto move = [](at::Tensor& tensor, const at::Tensor& to) {
    tensor = to.as_strided(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  };
  for (at::Tensor* ids :
       {&moved.source, &moved.target_in, &moved.target_out, &moved.source_real.slots,
        &moved.source_real.sequences.positions, &moved.target_real.slots, &moved.target_real.sequences.positions}) {
    move(*ids, memory.at(0));
  }
  for (at::Tensor* counts : {&moved.source_lengths, &moved.target_lengths, &moved.source_real.sequences.cu_seqlens,
                             &moved.target_real.sequences.cu_seqlens}) {
    move(*counts, memory.at(1));
  }
  return moved;
}

}  // namespace strobe::nmt
