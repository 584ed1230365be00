// Corpus BLEU as sacreBLEU 2.6.0 computes it (Post 2018, arXiv 1804.08771), to the last printed digit, with its
// signature.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace strobe::nmt {

enum class BleuTokenizer { kZh, k13a, kChar, kNone };

/// sacreBLEU's name of it: "zh", "13a", "char", "none"; and back, throwing strobe::Error with the four names.
std::string_view name(BleuTokenizer tokenizer);
BleuTokenizer bleu_tokenizer(std::string_view name);

struct Bleu {
  double score = 0.0;                  // 0..100
  std::array<double, 4> precisions{};  // percent
  double brevity_penalty = 0.0;
  int64_t hypothesis_length = 0, reference_length = 0;
  std::string signature;       // "nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp|version:2.6.0"
  std::string detail() const;  // "85.7/66.7/40.0/12.5 (BP = 1.000 ratio = 1.000 hyp_len = 7 ref_len = 7)"
  std::string text() const;    // sacreBLEU's line: "BLEU = 41.11 " and the detail
};

/// The text as sacreBLEU's tokenizer leaves it, tokens apart by single spaces.
std::string tokenize(std::string_view sentence, BleuTokenizer tokenizer);

/// Mixed case, exponential smoothing, one reference a hypothesis. The two have the same size.
Bleu corpus_bleu(const std::vector<std::string>& hypotheses, const std::vector<std::string>& references,
                 BleuTokenizer tokenizer);

}  // namespace strobe::nmt
