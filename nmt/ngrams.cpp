#include "nmt/ngrams.h"

#include <algorithm>

namespace strobe::nmt {

std::vector<NGram> sorted_ngrams(const std::vector<uint32_t>& symbols, std::size_t order, std::size_t max_order) {
  const std::size_t bits = 128 / max_order;
  std::vector<NGram> grams;
  for (std::size_t i = 0; i + order <= symbols.size(); ++i) {
    NGram gram = 0;
    for (std::size_t k = 0; k < order; ++k) gram = (gram << bits) | symbols[i + k];
    grams.push_back(gram);
  }
  std::sort(grams.begin(), grams.end());
  return grams;
}

int64_t matches(const std::vector<NGram>& a, const std::vector<NGram>& b) {
  int64_t count = 0;
  for (auto left = a.begin(), right = b.begin(); left != a.end() && right != b.end();) {
    if (*left == *right) {
      ++count;
      ++left;
      ++right;
    } else {
      ++(*left < *right ? left : right);
    }
  }
  return count;
}

uint32_t WordNumbers::operator()(std::string_view word) {
  return numbers_.try_emplace(std::string(word), static_cast<uint32_t>(numbers_.size())).first->second;
}

}  // namespace strobe::nmt
