// How sure a score is: bootstrap resampling of the test set (Koehn 2004, "Statistical significance tests for machine
// translation evaluation"), with the numbers that sacreBLEU 2.6.0 prints for the same seed (beside NumPy 2).
#pragma once

#include <cstdint>
#include <string>

#include "nmt/metric.h"

namespace strobe::nmt {

struct BootstrapOptions {
  int64_t samples = 1000;
  uint64_t seed = 12345;
};

/// For a signature: "bs:1000|seed:12345".
std::string resampling(const BootstrapOptions& options);

/// 95 % of the resampled scores lie within mean ± half_width.
struct Interval {
  double mean = 0.0;
  double half_width = 0.0;
};

/// Throws strobe::Error for no sentence or no sample.
Interval confidence(const Metric& metric, const SentenceCounts& counts, const BootstrapOptions& options);

struct Comparison {
  Interval baseline, system;
  /// How probable a larger difference of scores than the one found would be, were both systems equally good; says
  /// nothing where the scores are equal.
  double p_value = 1.0;
};

/// Paired: each sample takes the same sentences of both. Throws strobe::Error where the two differ in size.
Comparison compare(const Metric& metric, const SentenceCounts& baseline, const SentenceCounts& system,
                   const BootstrapOptions& options);

}  // namespace strobe::nmt
