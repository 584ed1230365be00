#include "nmt/batching.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <numeric>
#include <string>

#include "nmt/shuffle.h"
#include "nmt/vocabulary.h"
#include "strobe/types.h"

namespace strobe::nmt {
namespace {

// Large enough that the lengths in one batch hardly differ, small enough that the sets of sentences that meet in a
// batch change from epoch to epoch.
constexpr std::size_t kBucketSentences = 32768;

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

Batch make_batch(const std::vector<EncodedPair>& data, const Indices& indices, at::Device device) {
  int64_t longest_source = 0, longest_target = 0;
  for (const int64_t i : indices) {
    longest_source = std::max(longest_source, source_length(data[i]));
    longest_target = std::max(longest_target, target_length(data[i]));
  }
  const auto size = static_cast<int64_t>(indices.size());
  const auto padded = [&](int64_t length) { return at::full({size, length}, kPadId, at::dtype(at::kLong)); };
  Batch batch{padded(longest_source), at::empty({size}, at::dtype(at::kInt)), padded(longest_target),
              padded(longest_target), at::empty({size}, at::dtype(at::kInt))};
  for (int64_t row = 0; row < size; ++row) {
    const EncodedPair& pair = data[indices[row]];
    const int64_t ns = source_length(pair), nt = target_length(pair);
    std::copy_n(pair.source.begin(), ns, batch.source.mutable_data_ptr<int64_t>() + row * longest_source);
    std::copy_n(pair.target.begin(), nt, batch.target_in.mutable_data_ptr<int64_t>() + row * longest_target);
    std::copy_n(pair.target.end() - nt, nt, batch.target_out.mutable_data_ptr<int64_t>() + row * longest_target);
    batch.source_lengths.mutable_data_ptr<int32_t>()[row] = static_cast<int32_t>(ns);
    batch.target_lengths.mutable_data_ptr<int32_t>()[row] = static_cast<int32_t>(nt);
    batch.source_tokens += ns;
    batch.target_tokens += nt;
  }
  for (at::Tensor* tensor :
       {&batch.source, &batch.source_lengths, &batch.target_in, &batch.target_out, &batch.target_lengths}) {
    *tensor = tensor->to(device);
  }
  return batch;
}

}  // namespace strobe::nmt
