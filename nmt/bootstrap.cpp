#include "nmt/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "nmt/pcg64.h"
#include "strobe/types.h"

namespace strobe::nmt {
namespace {

void check(const SentenceCounts& counts, const BootstrapOptions& options) {
  if (options.samples < 1) {
    throw Error("bootstrap: samples: expected at least 1, found " + std::to_string(options.samples));
  }
  if (counts.empty() || counts.size() > std::numeric_limits<uint32_t>::max()) {
    throw Error("bootstrap: counts: expected 1 to 2^32 - 1 sentences, found " + std::to_string(counts.size()));
  }
}

/// The scores of `samples` corpora of as many sentences, drawn with replacement: the same ones for equal sizes and
/// seeds.
std::vector<double> resample(const Metric& metric, const SentenceCounts& counts, const BootstrapOptions& options) {
  check(counts, options);
  const std::size_t columns = counts.front().size();
  std::vector<float> rows;
  for (const std::vector<int64_t>& row : counts) {
    for (const int64_t count : row) rows.push_back(static_cast<float>(count));
  }
  Pcg64 random(options.seed);
  std::vector<double> scores;
  std::vector<float> sums(columns);
  for (int64_t sample = 0; sample < options.samples; ++sample) {
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (std::size_t i = 0; i < counts.size(); ++i) {
      const float* row = rows.data() + random.below(static_cast<uint32_t>(counts.size())) * columns;
      for (std::size_t k = 0; k < columns; ++k) sums[k] += row[k];
    }
    scores.push_back(metric.resampled_score(sums));
  }
  return scores;
}

/// The order in which NumPy adds: halves of halves down to blocks of at most 128, eight sums in each.
template <typename Real>
Real pairwise_sum(const Real* values, std::size_t count) {
  constexpr std::size_t kBlock = 128, kLanes = 8;
  if (count > kBlock) {
    const std::size_t half = count / 2 / kLanes * kLanes;
    return pairwise_sum(values, half) + pairwise_sum(values + half, count - half);
  }
  Real total = 0;
  std::size_t next = 0;
  if (count >= kLanes) {
    Real lane[kLanes];
    std::copy_n(values, kLanes, lane);
    for (next = kLanes; next + kLanes <= count; next += kLanes) {
      for (std::size_t k = 0; k < kLanes; ++k) lane[k] += values[next + k];
    }
    total = ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
  }
  for (; next < count; ++next) total += values[next];
  return total;
}

template <typename Real>
Real mean(const std::vector<Real>& values) {
  return pairwise_sum(values.data(), values.size()) / static_cast<Real>(values.size());
}

/// NumPy adds the sorted scores, which matters to the last digit of a float.
template <typename Real>
Interval interval(std::vector<Real> scores) {
  std::sort(scores.begin(), scores.end());
  const std::size_t outside = scores.size() / 40;  // 2.5 % at either end
  const Real width = scores[scores.size() - outside - 1] - scores[outside];
  return {mean(scores), static_cast<Real>(0.5) * width};
}

/// The share of the samples whose difference, centred as were there none between the systems, exceeds the one found.
template <typename Real>
Comparison compare_scores(const std::vector<double>& baseline, const std::vector<double>& system, double difference) {
  const std::vector<Real> ours(system.begin(), system.end()), theirs(baseline.begin(), baseline.end());
  std::vector<Real> differences;
  for (std::size_t i = 0; i < ours.size(); ++i) differences.push_back(std::abs(ours[i] - theirs[i]));
  const Real centre = mean(differences), found = static_cast<Real>(difference);
  const auto above = std::count_if(differences.begin(), differences.end(),
                                   [&](Real sample) { return static_cast<Real>(sample - centre) > found; });
  // One more of each, so that the null hypothesis is never rejected more often than it should be.
  const double p_value = (static_cast<double>(above) + 1.0) / (static_cast<double>(differences.size()) + 1.0);
  return {interval(theirs), interval(ours), p_value};
}

/// NumPy makes an array of float32 scores, unless sacreBLEU put the double 0.0 of a corpus without a match among them.
bool is_float(const Metric& metric, const std::vector<double>& scores) {
  return metric.resamples_to_float() && std::find(scores.begin(), scores.end(), 0.0) == scores.end();
}

}  // namespace

std::string resampling(const BootstrapOptions& options) {
  return "bs:" + std::to_string(options.samples) + "|seed:" + std::to_string(options.seed);
}

Interval confidence(const Metric& metric, const SentenceCounts& counts, const BootstrapOptions& options) {
  const std::vector<double> scores = resample(metric, counts, options);
  const Interval exact = interval(scores);
  if (!metric.resamples_to_float()) return exact;
  // For one system alone sacreBLEU's mean is exact, then rounded to the scores' type.
  const double half_width = interval(std::vector<float>(scores.begin(), scores.end())).half_width;
  return {static_cast<float>(exact.mean), half_width};
}

Comparison compare(const Metric& metric, const SentenceCounts& baseline, const SentenceCounts& system,
                   const BootstrapOptions& options) {
  if (baseline.size() != system.size()) {
    throw Error("compare: system: expected " + std::to_string(baseline.size()) +
                " sentences as the baseline has, found " + std::to_string(system.size()));
  }
  const std::vector<double> theirs = resample(metric, baseline, options), ours = resample(metric, system, options);
  const double difference = std::abs(metric.score(sum(baseline)) - metric.score(sum(system)));
  return is_float(metric, theirs) && is_float(metric, ours) ? compare_scores<float>(theirs, ours, difference)
                                                            : compare_scores<double>(theirs, ours, difference);
}

}  // namespace strobe::nmt
