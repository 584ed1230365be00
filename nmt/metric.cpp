#include "nmt/metric.h"

#include "nmt/chrf.h"
#include "strobe/types.h"

namespace strobe::nmt {

std::unique_ptr<Metric> metric(std::string_view name, BleuTokenizer tokenizer) {
  if (name == "bleu") return bleu_metric(tokenizer);
  if (name == "chrf") return chrf_metric(/*word_order=*/0);
  if (name == "chrf++") return chrf_metric(/*word_order=*/2);
  throw Error("metric: name: expected bleu, chrf or chrf++, found \"" + std::string(name) + "\"");
}

std::string signature(const Metric& metric, const std::string& resampling) {
  return "nrefs:1|" + (resampling.empty() ? "" : resampling + "|") + metric.settings() + "|version:2.6.0";
}

SentenceCounts sentence_counts(const Metric& metric, const std::vector<std::string>& hypotheses,
                               const std::vector<std::string>& references) {
  if (hypotheses.size() != references.size() || hypotheses.empty()) {
    throw Error(metric.name() + ": hypotheses: expected one for each reference and at least one, found " +
                std::to_string(hypotheses.size()) + " for " + std::to_string(references.size()) + " references");
  }
  SentenceCounts counts;
  for (std::size_t i = 0; i < hypotheses.size(); ++i) counts.push_back(metric.counts(hypotheses[i], references[i]));
  return counts;
}

std::vector<int64_t> sum(const SentenceCounts& counts) {
  std::vector<int64_t> sums(counts.empty() ? 0 : counts.front().size());
  for (const std::vector<int64_t>& row : counts) {
    for (std::size_t k = 0; k < row.size(); ++k) sums[k] += row[k];
  }
  return sums;
}

}  // namespace strobe::nmt
