// What measures of translation quality have in common: a score of a corpus that is a function of counts summed over its
// sentences, which is what resampling needs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nmt/bleu.h"

namespace strobe::nmt {

class Metric {
 public:
  virtual ~Metric() = default;

  virtual std::string name() const = 0;      // sacreBLEU's: "BLEU", "chrF2", "chrF2++"
  virtual std::string settings() const = 0;  // its part of the signature: "case:mixed|eff:no|tok:zh|smooth:exp"

  /// The sentence's counts, always as many, below 2^31.
  virtual std::vector<int64_t> counts(std::string_view hypothesis, std::string_view reference) const = 0;

  /// 0..100, from counts summed over the corpus.
  virtual double score(const std::vector<int64_t>& sums) const = 0;
  /// What sacreBLEU prints behind the score; "" where that is nothing.
  virtual std::string detail(const std::vector<int64_t>& sums) const = 0;

  /// The score of a resampled corpus, whose counts sacreBLEU sums, and goes on to use, as NumPy's float32.
  virtual double resampled_score(const std::vector<float>& sums) const = 0;
  /// Whether such a score is itself a float32.
  virtual bool resamples_to_float() const = 0;
};

/// BLEU: mixed case, exponential smoothing, one reference a hypothesis.
std::unique_ptr<Metric> bleu_metric(BleuTokenizer tokenizer);

/// "bleu", "chrf" or "chrf++"; throws strobe::Error with these names. BLEU uses the tokenizer.
std::unique_ptr<Metric> metric(std::string_view name, BleuTokenizer tokenizer);

/// "nrefs:1|case:mixed|...|version:2.6.0"; `resampling`, where there is any, stands behind nrefs
/// ("bs:1000|seed:12345").
std::string signature(const Metric& metric, const std::string& resampling = "");

/// A row of counts for each sentence. Throws strobe::Error where the two differ in size or are empty.
using SentenceCounts = std::vector<std::vector<int64_t>>;
SentenceCounts sentence_counts(const Metric& metric, const std::vector<std::string>& hypotheses,
                               const std::vector<std::string>& references);

std::vector<int64_t> sum(const SentenceCounts& counts);

}  // namespace strobe::nmt
