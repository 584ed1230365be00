#include "ops/attn_type.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <numeric>

namespace strobe::ops {
namespace {

/// Levenshtein distance by bytes.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string nearest_name(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, word.size() / 2) + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

AttnType parse_attn_type(std::string_view name) {
  const auto found = std::find(kAttnTypeNames.begin(), kAttnTypeNames.end(), name);
  if (found != kAttnTypeNames.end()) return static_cast<AttnType>(found - kAttnTypeNames.begin());
  const std::string near = nearest_name(name, {kAttnTypeNames.begin(), kAttnTypeNames.end()});
  TORCH_CHECK(false, "strobe::attention: attn_type: expected dotscale, flash_attn or imp_flash_attn, found \"", name,
              "\"", near.empty() ? "" : "; did you mean \"" + near + "\"?");
}

}  // namespace strobe::ops
