#include "nmt/chrf.h"

#include <algorithm>
#include <string>

#include "nmt/ngrams.h"
#include "nmt/text.h"

namespace strobe::nmt {
namespace {

constexpr std::size_t kCharacterOrder = 6;
constexpr int kBeta = 2;

std::vector<uint32_t> characters(std::string_view text) {
  std::vector<uint32_t> points;
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint point = code_point_at(text, i);
    if (!is_space(point.value)) points.push_back(point.value);
    i += point.bytes;
  }
  return points;
}

/// string.punctuation of Python.
bool is_punctuation(char c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

/// One sign of punctuation is split off a word: the last, or else the first.
void add_word(std::string_view word, WordNumbers& number, std::vector<uint32_t>& words) {
  if (word.empty()) return;
  if (code_point_at(word, 0).bytes == word.size()) {
    words.push_back(number(word));
  } else if (is_punctuation(word.back())) {
    words.push_back(number(word.substr(0, word.size() - 1)));
    words.push_back(number(word.substr(word.size() - 1)));
  } else if (is_punctuation(word.front())) {
    words.push_back(number(word.substr(0, 1)));
    words.push_back(number(word.substr(1)));
  } else {
    words.push_back(number(word));
  }
}

std::vector<uint32_t> words(std::string_view text, WordNumbers& number) {
  std::vector<uint32_t> result;
  std::size_t start = 0;
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint point = code_point_at(text, i);
    if (is_space(point.value)) {
      add_word(text.substr(start, i - start), number, result);
      start = i + point.bytes;
    }
    i += point.bytes;
  }
  add_word(text.substr(start), number, result);
  return result;
}

/// For each order the n-grams of the hypothesis, of the reference, and those in both.
void add_counts(const std::vector<uint32_t>& hypothesis, const std::vector<uint32_t>& reference, std::size_t orders,
                std::vector<int64_t>& counts) {
  for (std::size_t order = 1; order <= orders; ++order) {
    const std::vector<NGram> ours = sorted_ngrams(hypothesis, order, orders);
    const std::vector<NGram> theirs = sorted_ngrams(reference, order, orders);
    // A hypothesis is not blamed where the reference is too short for the order.
    counts.push_back(theirs.empty() ? 0 : static_cast<int64_t>(ours.size()));
    counts.push_back(static_cast<int64_t>(theirs.size()));
    counts.push_back(matches(ours, theirs));
  }
}

/// The F-score of precision and recall, each averaged over the orders of which both sides have n-grams. `Real` is what
/// the computation rounds to after each step.
template <typename Real, typename Count>
Real f_score(const std::vector<Count>& sums) {
  Real precision = 0, recall = 0;
  int effective_orders = 0;
  for (std::size_t i = 0; i < sums.size(); i += 3) {
    const auto hypothesis = static_cast<Real>(sums[i]), reference = static_cast<Real>(sums[i + 1]);
    if (hypothesis <= 0 || reference <= 0) continue;
    precision += static_cast<Real>(sums[i + 2]) / hypothesis;
    recall += static_cast<Real>(sums[i + 2]) / reference;
    ++effective_orders;
  }
  if (precision + recall == 0) return 0;
  precision /= static_cast<Real>(effective_orders);
  recall /= static_cast<Real>(effective_orders);
  constexpr Real kFactor = kBeta * kBeta;
  const Real score = (1 + kFactor) * precision * recall / (kFactor * precision + recall);
  return 100 * score;
}

class Chrf : public Metric {
 public:
  explicit Chrf(int64_t word_order) : word_order_(static_cast<std::size_t>(word_order)) {}

  std::string name() const override { return "chrF" + std::to_string(kBeta) + std::string(word_order_, '+'); }

  std::string settings() const override {
    return "case:mixed|eff:yes|nc:" + std::to_string(kCharacterOrder) + "|nw:" + std::to_string(word_order_) +
           "|space:no";
  }

  std::vector<int64_t> counts(std::string_view hypothesis, std::string_view reference) const override {
    std::vector<int64_t> result;
    add_counts(characters(hypothesis), characters(reference), kCharacterOrder, result);
    if (word_order_ == 0) return result;
    WordNumbers number;
    const std::vector<uint32_t> ours = words(hypothesis, number);
    add_counts(ours, words(reference, number), word_order_, result);
    return result;
  }

  double score(const std::vector<int64_t>& sums) const override { return f_score<double>(sums); }
  std::string detail(const std::vector<int64_t>&) const override { return ""; }
  double resampled_score(const std::vector<float>& sums) const override { return f_score<float>(sums); }
  bool resamples_to_float() const override { return true; }

 private:
  std::size_t word_order_;
};

}  // namespace

std::unique_ptr<Metric> chrf_metric(int64_t word_order) { return std::make_unique<Chrf>(word_order); }

}  // namespace strobe::nmt
