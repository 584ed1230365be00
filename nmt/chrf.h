// Corpus chrF as sacreBLEU 2.6.0 computes it (Popović 2015, "chrF: character n-gram F-score for automatic MT
// evaluation"), and chrF++ (Popović 2017), which counts words too.
#pragma once

#include <memory>

#include "nmt/metric.h"

namespace strobe::nmt {

/// F-score with beta 2 of character n-grams up to order 6, white space left out, and of word n-grams up to `word_order`
/// (chrF: 0, chrF++: 2); mixed case, one reference a hypothesis.
std::unique_ptr<Metric> chrf_metric(int64_t word_order);

}  // namespace strobe::nmt
