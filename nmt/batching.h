// Batches of similar lengths: which sentences go together, and the padded tensors of one batch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace strobe::nmt {

/// A sentence pair as ids: bos ... eos on both sides (FlashAttentionNMT's form).
struct EncodedPair {
  std::vector<int64_t> source;
  std::vector<int64_t> target;
};

struct BatchLimits {
  int64_t sentences = 32;  // at most so many sentences; 0: no limit
  int64_t max_tokens = 0;  // at most so many slots (sentences x longest) on either side; 0: no limit
};

/// Indices into the data, batch by batch. Sentences are shuffled by (seed, epoch), then sorted by length within large
/// buckets, cut into batches, and the batches shuffled: few padded slots, no fixed order. A sentence that alone exceeds
/// max_tokens gets a batch of its own.
std::vector<std::vector<int64_t>> bucket_batches(const std::vector<EncodedPair>& data, const BatchLimits& limits,
                                                 uint64_t seed, int64_t epoch);
/// The same cuts without shuffling, longest first, for evaluation.
std::vector<std::vector<int64_t>> sorted_batches(const std::vector<EncodedPair>& data, const BatchLimits& limits);

/// Right-padded with kPadId; int64 on the CPU unless moved.
struct Batch {
  at::Tensor source;                             // [B, Ns] ids, bos ... eos
  at::Tensor source_lengths;                     // [B] int32
  at::Tensor target_in;                          // [B, Nt] ids, bos ... (without the last)
  at::Tensor target_out;                         // [B, Nt] ids, ... eos (without the first), kPadId in padding
  at::Tensor target_lengths;                     // [B] int32, of target_in
  int64_t source_tokens = 0, target_tokens = 0;  // without padding; the target's without bos
};
Batch make_batch(const std::vector<EncodedPair>& data, const std::vector<int64_t>& indices, at::Device device);

}  // namespace strobe::nmt
