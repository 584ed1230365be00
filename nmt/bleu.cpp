#include "nmt/bleu.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <unordered_map>

#include "strobe/types.h"

namespace strobe::nmt {
namespace {

constexpr std::size_t kOrders = 4;
using Counts = std::array<int64_t, kOrders>;
using NGram = std::array<int32_t, kOrders>;  // word numbers; -1 beyond the n-gram's order

/// Numbers the words of one sentence pair.
class Numbering {
 public:
  std::vector<int32_t> operator()(std::string_view tokens) {
    std::vector<int32_t> numbers;
    for (std::size_t start = 0; start < tokens.size();) {
      const std::size_t end = std::min(tokens.find(' ', start), tokens.size());
      const auto next = static_cast<int32_t>(numbers_.size());
      numbers.push_back(numbers_.try_emplace(std::string(tokens.substr(start, end - start)), next).first->second);
      start = end + 1;
    }
    return numbers;
  }

 private:
  std::unordered_map<std::string, int32_t> numbers_;
};

/// All n-grams of one order, sorted, so that two lists can be intersected.
std::vector<NGram> ngrams(const std::vector<int32_t>& words, std::size_t order) {
  std::vector<NGram> grams;
  for (std::size_t i = 0; i + order <= words.size(); ++i) {
    NGram gram{-1, -1, -1, -1};
    std::copy_n(words.begin() + static_cast<std::ptrdiff_t>(i), order, gram.begin());
    grams.push_back(gram);
  }
  std::sort(grams.begin(), grams.end());
  return grams;
}

/// How many n-grams of `a` are in `b`, each counted at most as often as it stands in both.
int64_t matches(const std::vector<NGram>& a, const std::vector<NGram>& b) {
  std::vector<NGram> common;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(common));
  return static_cast<int64_t>(common.size());
}

double brevity_penalty(int64_t hypothesis_length, int64_t reference_length) {
  if (hypothesis_length >= reference_length) return 1.0;
  if (hypothesis_length == 0) return 0.0;
  return std::exp(1.0 - static_cast<double>(reference_length) / static_cast<double>(hypothesis_length));
}

/// Fills in precisions and score. Smoothing "exp" (NIST's): the k-th order without a match counts as 2^-k matches. An
/// order without a single n-gram ends the list and makes the score vanish.
void score(Bleu& bleu, const Counts& correct, const Counts& total) {
  constexpr double kLogOfZero = -9999999999.0;
  if (correct == Counts{}) return;
  double halvings = 1.0;
  double sum_of_logs = 0.0;
  bool ended = false;
  for (std::size_t n = 0; n < kOrders; ++n) {
    ended = ended || total[n] == 0;
    if (!ended && correct[n] == 0) halvings *= 2.0;
    if (!ended) {
      const auto counted = static_cast<double>(total[n]);
      bleu.precisions[n] =
          correct[n] == 0 ? 100.0 / (halvings * counted) : 100.0 * static_cast<double>(correct[n]) / counted;
    }
    sum_of_logs += ended ? kLogOfZero : std::log(bleu.precisions[n]);
  }
  bleu.score = bleu.brevity_penalty * std::exp(sum_of_logs / kOrders);
}

}  // namespace

std::string Bleu::text() const {
  const double ratio =
      reference_length == 0 ? 0.0 : static_cast<double>(hypothesis_length) / static_cast<double>(reference_length);
  std::array<char, 256> line{};
  std::snprintf(line.data(), line.size(),
                "BLEU = %.2f %.1f/%.1f/%.1f/%.1f (BP = %.3f ratio = %.3f hyp_len = %lld ref_len = %lld)", score,
                precisions[0], precisions[1], precisions[2], precisions[3], brevity_penalty, ratio,
                static_cast<long long>(hypothesis_length), static_cast<long long>(reference_length));
  return line.data();
}

Bleu corpus_bleu(const std::vector<std::string>& hypotheses, const std::vector<std::string>& references,
                 BleuTokenizer tokenizer) {
  if (hypotheses.size() != references.size() || hypotheses.empty()) {
    throw Error("corpus_bleu: hypotheses: expected one for each reference and at least one, found " +
                std::to_string(hypotheses.size()) + " for " + std::to_string(references.size()) + " references");
  }
  Bleu bleu;
  Counts correct{}, total{};
  for (std::size_t i = 0; i < hypotheses.size(); ++i) {
    Numbering numbers;
    const std::vector<int32_t> hypothesis = numbers(tokenize(hypotheses[i], tokenizer));
    const std::vector<int32_t> reference = numbers(tokenize(references[i], tokenizer));
    bleu.hypothesis_length += static_cast<int64_t>(hypothesis.size());
    bleu.reference_length += static_cast<int64_t>(reference.size());
    for (std::size_t order = 1; order <= kOrders; ++order) {
      const std::vector<NGram> grams = ngrams(hypothesis, order);
      correct[order - 1] += matches(grams, ngrams(reference, order));
      total[order - 1] += static_cast<int64_t>(grams.size());
    }
  }
  bleu.brevity_penalty = brevity_penalty(bleu.hypothesis_length, bleu.reference_length);
  score(bleu, correct, total);
  bleu.signature = "nrefs:1|case:mixed|eff:no|tok:" + std::string(name(tokenizer)) + "|smooth:exp|version:2.6.0";
  return bleu;
}

}  // namespace strobe::nmt
