#include "nmt/length_filter.h"

#include <algorithm>
#include <utility>

#include "strobe/types.h"

namespace strobe::nmt {
namespace {

int64_t pieces(const std::vector<int64_t>& ids) { return static_cast<int64_t>(ids.size()) - 2; }

/// Where to count the pair if it is left out, or null.
int64_t LeftOut::*reason(const EncodedPair& pair, const LengthLimits& limits) {
  const auto [shorter, longer] = std::minmax({pieces(pair.source), pieces(pair.target)});
  if (shorter == 0) return &LeftOut::empty;
  if (shorter < limits.min) return &LeftOut::too_short;
  if (limits.max > 0 && longer > limits.max) return &LeftOut::too_long;
  const bool uneven = static_cast<double>(longer) > limits.max_ratio * static_cast<double>(shorter);
  return limits.max_ratio > 0.0 && uneven ? &LeftOut::ratio : nullptr;
}

}  // namespace

void validate(const LengthLimits& limits) {
  const auto require = [](bool holds, const std::string& text) {
    if (!holds) throw Error("length limits: " + text);
  };
  require(limits.min >= 1, "min: expected at least 1, found " + std::to_string(limits.min));
  require(limits.max == 0 || limits.max >= limits.min,
          "max: expected 0 or at least min " + std::to_string(limits.min) + ", found " + std::to_string(limits.max));
  require(limits.max_ratio == 0.0 || limits.max_ratio >= 1.0,
          "max_ratio: expected 0 or at least 1, found " + std::to_string(limits.max_ratio));
}

std::string LeftOut::text() const {
  return "left out " + std::to_string(total()) + " of " + std::to_string(pairs) +
         " pairs: " + std::to_string(too_long) + " too long, " + std::to_string(too_short) + " too short, " +
         std::to_string(empty) + " empty, " + std::to_string(ratio) + " by their ratio";
}

LeftOut filter_lengths(std::vector<SentencePair>& texts, std::vector<EncodedPair>& pairs, const LengthLimits& limits) {
  validate(limits);
  LeftOut left_out;
  left_out.pairs = static_cast<int64_t>(pairs.size());
  std::size_t kept = 0;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    if (int64_t LeftOut::*counter = reason(pairs[i], limits)) {
      ++(left_out.*counter);
      continue;
    }
    if (i != kept) {
      pairs[kept] = std::move(pairs[i]);
      texts[kept] = std::move(texts[i]);
    }
    ++kept;
  }
  pairs.resize(kept);
  texts.resize(kept);
  return left_out;
}

}  // namespace strobe::nmt
