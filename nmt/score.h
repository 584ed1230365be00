// How probable a model finds translations that are there already.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "nmt/batching.h"
#include "nmt/corpus.h"
#include "nmt/transformer.h"
#include "train/precision.h"

namespace strobe::nmt {

struct ScoreOptions {
  BatchLimits batch{.sentences = 64, .max_tokens = 2048};  // each target slot takes a row of the vocabulary's size
  train::Precision precision = train::Precision::kFp32;
};

/// The natural log-probabilities of each target's tokens, given its source and the tokens before, eos included:
/// results[i] belongs to pairs[i]. Eval mode, no gradients; the module's mode is put back.
std::vector<std::vector<double>> token_log_probabilities(Transformer& model, const std::vector<EncodedPair>& pairs,
                                                         const ScoreOptions& options);

/// Source, tab, target; further columns are ignored, either side may be empty. Throws strobe::Error naming the line by
/// its number where there is no tab or the text is not UTF-8.
SentencePair parse_pair(std::string_view line, std::size_t number);

}  // namespace strobe::nmt
