// Leaving out sentence pairs by their lengths.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nmt/batching.h"
#include "nmt/corpus.h"

namespace strobe::nmt {

/// In pieces of the vocabularies, bos and eos not counted.
struct LengthLimits {
  int64_t min = 1;         // fewest on either side
  int64_t max = 0;         // most on either side; 0: no limit
  double max_ratio = 0.0;  // most times as many on one side as on the other; 0: no limit
};

/// Throws strobe::Error naming the limit that is out of range.
void validate(const LengthLimits& limits);

/// How many pairs there were and which were left out, each counted once, for the first reason that holds.
struct LeftOut {
  int64_t pairs = 0;
  int64_t empty = 0;  // a side without a piece
  int64_t too_short = 0, too_long = 0, ratio = 0;

  int64_t total() const { return empty + too_short + too_long + ratio; }
  /// "left out 7 of 1000 pairs: 4 too long, 0 too short, 1 empty, 2 by their ratio"
  std::string text() const;
};

/// texts[i] belongs to pairs[i]; both keep the order of what stays.
LeftOut filter_lengths(std::vector<SentencePair>& texts, std::vector<EncodedPair>& pairs, const LengthLimits& limits);

}  // namespace strobe::nmt
