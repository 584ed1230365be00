// Cutting one corpus into training, development and test sets that share no sentence.
#pragma once

#include <cstdint>
#include <vector>

#include "nmt/corpus.h"

namespace strobe::nmt {

struct Split {
  std::vector<SentencePair> train, dev, test;
};

/// Pairs that share a source or a target text, directly or through others, form a group; the groups are shuffled by the
/// seed and each goes whole into one set, so no two sets share a sentence on either side. dev and test get `held_out`
/// pairs each, or a tenth of a corpus with fewer than 10 x held_out pairs. Throws strobe::Error where a set would be
/// left empty.
Split split_pairs(std::vector<SentencePair> pairs, int64_t held_out, uint64_t seed);

/// How many pairs of `pairs` share their source or their target text with some pair of `others`.
int64_t count_shared(const std::vector<SentencePair>& pairs, const std::vector<SentencePair>& others);

}  // namespace strobe::nmt
