// Decoding: the target sentence of high probability, token by token with cached keys and values.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "nmt/transformer.h"

namespace strobe::nmt {

struct SearchOptions {
  int64_t beam = 3;             // hypotheses kept a sentence; 1: greedy
  int64_t n_best = 1;           // hypotheses returned a sentence, at most `beam`
  int64_t max_length = 0;       // most target tokens, eos included; 0: max(60, twice the source's tokens)
  int64_t min_length = 0;       // fewest target tokens, eos not included
  double length_penalty = 0.0;  // a and w: finished hypotheses compare by (sum of log-probabilities - w tokens) /
  double word_penalty = 0.0;    // tokens^a, eos counted; w < 0 rewards length. Marian's formula and signs.
};

struct Hypothesis {
  std::vector<int64_t> ids;      // without bos and eos
  double score = 0.0;            // as compared
  double log_probability = 0.0;  // natural, the sum over the tokens, eos included, of fp32 values
};

/// A sentence's hypotheses, best first; never empty. All of them are finished, or, where none is by max_length, all
/// unfinished and of that length. Fewer than n_best where the search finished fewer.
using NBest = std::vector<Hypothesis>;

/// Throws strobe::Error naming the option that is out of range.
void validate(const SearchOptions& options);

/// For source [B, Ns] ids with lengths [B] int32, on the model's device, in eval mode and without gradients; the
/// module's mode is put back. Pad and bos are never produced. Greedy search where the beam is 1, beam search otherwise.
std::vector<NBest> search(Transformer& model, const at::Tensor& source, const at::Tensor& source_lengths,
                          const SearchOptions& options);

/// The most probable token at each step, until eos; the penalties change the score, not the choice.
std::vector<NBest> greedy_search(Transformer& model, const at::Tensor& source, const at::Tensor& source_lengths,
                                 const SearchOptions& options);

/// At each step the `beam` best unfinished continuations are kept; those among the `beam` best continuations of a
/// sentence that end in eos are finished and never extended. A sentence is done, and leaves the batch, when no
/// continuation of what is kept can enter the list of its n_best finished hypotheses, or at max_length: stopping early
/// never changes the result.
std::vector<NBest> beam_search(Transformer& model, const at::Tensor& source, const at::Tensor& source_lengths,
                               const SearchOptions& options);

}  // namespace strobe::nmt
