// English and Chinese phrases that say the same, made from ICU's locale data (CLDR): a corpus that needs no download,
// is large enough to train on and so regular that a small model translates it almost without error.
#pragma once

#include <cstdint>
#include <vector>

#include "nmt/corpus.h"

namespace strobe::nmt {

/// `count` different pairs: numbers spelt out, dates, dates with times, amounts of money, measures, relative times. No
/// two pairs share a source or a target, so every phrase has one translation. The same seed gives the same pairs with
/// the same release of ICU. Throws strobe::Error where ICU's data for en or zh is missing.
std::vector<SentencePair> demo_pairs(int64_t count, uint64_t seed);

}  // namespace strobe::nmt
