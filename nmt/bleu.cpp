#include "nmt/bleu.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "nmt/metric.h"
#include "nmt/ngrams.h"

namespace strobe::nmt {
namespace {

constexpr std::size_t kOrders = 4;

/// The words of one side of a sentence pair, numbered.
std::vector<uint32_t> words(std::string_view tokens, WordNumbers& number) {
  std::vector<uint32_t> numbers;
  for (std::size_t start = 0; start < tokens.size();) {
    const std::size_t end = std::min(tokens.find(' ', start), tokens.size());
    numbers.push_back(number(tokens.substr(start, end - start)));
    start = end + 1;
  }
  return numbers;
}

double brevity_penalty(int64_t hypothesis_length, int64_t reference_length) {
  if (hypothesis_length >= reference_length) return 1.0;
  if (hypothesis_length == 0) return 0.0;
  return std::exp(1.0 - static_cast<double>(reference_length) / static_cast<double>(hypothesis_length));
}

/// From sums of the metric's counts: hypothesis and reference length, the n-grams of each order that match, and all of
/// the hypothesis. Smoothing "exp" (NIST's): the k-th order without a match counts as 2^-k matches. An order without a
/// single n-gram ends the list and makes the score vanish. `Real` is what precisions are rounded to.
template <typename Real, typename Count>
Bleu bleu_of(const std::vector<Count>& sums) {
  constexpr double kLogOfZero = -9999999999.0;
  Bleu bleu;
  bleu.hypothesis_length = static_cast<int64_t>(sums[0]);
  bleu.reference_length = static_cast<int64_t>(sums[1]);
  bleu.brevity_penalty = brevity_penalty(bleu.hypothesis_length, bleu.reference_length);
  const Count* correct = sums.data() + 2;
  const Count* total = correct + kOrders;
  if (std::all_of(correct, total, [](Count count) { return count == 0; })) return bleu;
  Real halvings = 1;
  double sum_of_logs = 0.0;
  bool ended = false;
  for (std::size_t n = 0; n < kOrders; ++n) {
    ended = ended || total[n] == 0;
    if (!ended && correct[n] == 0) halvings *= 2;
    if (!ended) {
      const auto matched = static_cast<Real>(correct[n]), counted = static_cast<Real>(total[n]);
      const Real precision = correct[n] == 0 ? 100 / (halvings * counted) : 100 * matched / counted;
      bleu.precisions[n] = precision;
    }
    sum_of_logs += ended ? kLogOfZero : std::log(bleu.precisions[n]);
  }
  bleu.score = bleu.brevity_penalty * std::exp(sum_of_logs / kOrders);
  return bleu;
}

class BleuMetric : public Metric {
 public:
  explicit BleuMetric(BleuTokenizer tokenizer) : tokenizer_(tokenizer) {}

  std::string name() const override { return "BLEU"; }
  std::string settings() const override {
    return "case:mixed|eff:no|tok:" + std::string(nmt::name(tokenizer_)) + "|smooth:exp";
  }

  std::vector<int64_t> counts(std::string_view hypothesis, std::string_view reference) const override {
    WordNumbers number;
    const std::vector<uint32_t> ours = words(tokenize(hypothesis, tokenizer_), number);
    const std::vector<uint32_t> theirs = words(tokenize(reference, tokenizer_), number);
    std::vector<int64_t> result(2 + 2 * kOrders);
    result[0] = static_cast<int64_t>(ours.size());
    result[1] = static_cast<int64_t>(theirs.size());
    for (std::size_t order = 1; order <= kOrders; ++order) {
      const std::vector<NGram> grams = sorted_ngrams(ours, order, kOrders);
      result[1 + order] = matches(grams, sorted_ngrams(theirs, order, kOrders));
      result[1 + kOrders + order] = static_cast<int64_t>(grams.size());
    }
    return result;
  }

  double score(const std::vector<int64_t>& sums) const override { return bleu_of<double>(sums).score; }
  std::string detail(const std::vector<int64_t>& sums) const override { return bleu_of<double>(sums).detail(); }
  double resampled_score(const std::vector<float>& sums) const override { return bleu_of<float>(sums).score; }
  bool resamples_to_float() const override { return false; }

 private:
  BleuTokenizer tokenizer_;
};

}  // namespace

std::string Bleu::detail() const {
  const double ratio =
      reference_length == 0 ? 0.0 : static_cast<double>(hypothesis_length) / static_cast<double>(reference_length);
  return fmt::format("{:.1f}/{:.1f}/{:.1f}/{:.1f} (BP = {:.3f} ratio = {:.3f} hyp_len = {} ref_len = {})",
                     precisions[0], precisions[1], precisions[2], precisions[3], brevity_penalty, ratio,
                     hypothesis_length, reference_length);
}

std::string Bleu::text() const { return fmt::format("BLEU = {:.2f} {}", score, detail()); }

std::unique_ptr<Metric> bleu_metric(BleuTokenizer tokenizer) { return std::make_unique<BleuMetric>(tokenizer); }

Bleu corpus_bleu(const std::vector<std::string>& hypotheses, const std::vector<std::string>& references,
                 BleuTokenizer tokenizer) {
  const BleuMetric metric(tokenizer);
  Bleu bleu = bleu_of<double>(sum(sentence_counts(metric, hypotheses, references)));
  bleu.signature = signature(metric);
  return bleu;
}

}  // namespace strobe::nmt
