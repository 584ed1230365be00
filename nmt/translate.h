// Text to text: many sentences in batches of similar lengths, in their own order.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "nmt/batching.h"
#include "nmt/checkpoint.h"
#include "nmt/search.h"
#include "train/precision.h"

namespace strobe::nmt {

struct TranslateOptions {
  SearchOptions search;
  BatchLimits batch{.sentences = 64, .max_tokens = 0};
  train::Precision precision = train::Precision::kFp32;
};

/// The hypotheses for each pair's source; targets are not looked at.
std::vector<NBest> search_all(Transformer& model, const std::vector<EncodedPair>& pairs,
                              const TranslateOptions& options);

struct Translation {
  std::string text;
  double score = 0.0;            // as the search compared it
  double log_probability = 0.0;  // natural, of the pieces and the end of sentence
};

struct Translations {
  std::vector<std::vector<Translation>> lines;  // as many as went in; each has one at least, best first
  std::vector<std::size_t> invalid_utf8;        // the lines that could not be read; their translations are empty
};

/// A line of white space alone has one translation, the empty one, with score 0.
Translations translate(TranslationModel& model, const std::vector<std::string>& lines, const TranslateOptions& options);

}  // namespace strobe::nmt
