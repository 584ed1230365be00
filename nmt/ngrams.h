// Counting n-grams that two texts share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace strobe::nmt {

__extension__ using NGram = unsigned __int128;  // the symbols side by side, 128 / max_order bits each

/// All n-grams of one order <= max_order, sorted. Symbols are below 2^(128 / max_order).
std::vector<NGram> sorted_ngrams(const std::vector<uint32_t>& symbols, std::size_t order, std::size_t max_order);

/// How many n-grams two sorted lists share, each counted at most as often as it stands in both.
int64_t matches(const std::vector<NGram>& a, const std::vector<NGram>& b);

/// Numbers words in the order in which they are first seen.
class WordNumbers {
 public:
  uint32_t operator()(std::string_view word);

 private:
  std::unordered_map<std::string, uint32_t> numbers_;
};

}  // namespace strobe::nmt
