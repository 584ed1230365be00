// Cutting one corpus into training, development and test sets that share no sentence.
#pragma once

#include <cstdint>
#include <vector>

#include "nmt/corpus.h"

namespace strobe::nmt {

struct Split {
  std::vector<SentencePair> train, dev, test;
};

/// How many pairs dev and test get.
struct HeldOut {
  int64_t dev = 1000, test = 1000;
};

/// 1000 each, or a tenth of a corpus with fewer than 10,000 pairs, at least 1.
HeldOut usual_held_out(int64_t pairs);

/// Pairs that share a source or a target text, directly or through others, form a group; the groups are shuffled by the
/// seed and each goes whole into one set, so no two sets share a sentence on either side. dev and test get as many
/// pairs as wanted, or fewer where groups are too large for what is left. Throws strobe::Error where a set would be
/// left empty.
Split split_pairs(std::vector<SentencePair> pairs, const HeldOut& wanted, uint64_t seed);

/// How many pairs of `pairs` share their source or their target text with some pair of `others`.
int64_t count_shared(const std::vector<SentencePair>& pairs, const std::vector<SentencePair>& others);

}  // namespace strobe::nmt
