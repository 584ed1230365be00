// Decoding: the target sentence of high probability, token by token with cached keys and values.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "nmt/transformer.h"

namespace strobe::nmt {

struct SearchOptions {
  int64_t beam = 3;             // hypotheses kept a sentence; 1: greedy
  int64_t max_length = 0;       // most target tokens, eos included; 0: max(60, twice the source's tokens)
  double length_penalty = 0.0;  // a: finished hypotheses compare by (sum of log-probabilities) / tokens^a, eos counted
};

struct Hypothesis {
  std::vector<int64_t> ids;  // without bos and eos
  double score = 0.0;        // as compared; log-probabilities are summed from fp32 logits in double
};

/// Throws strobe::Error naming the option that is out of range.
void validate(const SearchOptions& options);

/// One hypothesis a sentence for source [B, Ns] ids with lengths [B] int32, on the model's device, in eval mode and
/// without gradients; the module's mode is put back. Pad and bos are never produced. Greedy search where the beam is 1,
/// beam search otherwise.
std::vector<Hypothesis> search(Transformer& model, const at::Tensor& source, const at::Tensor& source_lengths,
                               const SearchOptions& options);

/// The most probable token at each step, until eos.
std::vector<Hypothesis> greedy_search(Transformer& model, const at::Tensor& source, const at::Tensor& source_lengths,
                                      const SearchOptions& options);

/// At each step the `beam` best unfinished continuations are kept; those among the `beam` best continuations of a
/// sentence that end in eos are finished and never extended. A sentence is done, and leaves the batch, when no
/// continuation of what is kept can beat its best finished hypothesis, or at max_length; where nothing is finished by
/// then, the best unfinished one is its result.
std::vector<Hypothesis> beam_search(Transformer& model, const at::Tensor& source, const at::Tensor& source_lengths,
                                    const SearchOptions& options);

}  // namespace strobe::nmt
