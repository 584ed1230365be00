// Batches of similar lengths: which sentences go together, and the tensors of one batch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "nn/sequences.h"

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

/// The tokens of one side without its padding, sentence after sentence.
struct RealTokens {
  at::Tensor slots = {};         // [T] int64: which of the B * N slots they stand in
  nn::Sequences sequences = {};  // packed

  /// [B, N, ...] -> [T, ...].
  at::Tensor of(const at::Tensor& padded) const;
};

/// Right-padded with kPadId; ids are int64.
struct Batch {
  at::Tensor source;                             // [B, Ns] ids, bos ... eos
  at::Tensor source_lengths;                     // [B] int32
  at::Tensor target_in;                          // [B, Nt] ids, bos ... (without the last)
  at::Tensor target_out;                         // [B, Nt] ids, ... eos (without the first), kPadId in padding
  at::Tensor target_lengths;                     // [B] int32, of target_in
  int64_t source_tokens = 0, target_tokens = 0;  // without padding; the target's without bos
  RealTokens source_real, target_real;
};

/// The tensors of a batch share one memory a dtype, so that a batch goes to an accelerator in two copies, for which the
/// host does not wait.
Batch make_batch(const std::vector<EncodedPair>& data, const std::vector<int64_t>& indices, at::Device device);

}  // namespace strobe::nmt
