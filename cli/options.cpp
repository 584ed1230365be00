#include "cli/options.h"

#include <algorithm>
#include <numeric>

namespace strobe::cli {
namespace {

/// Levenshtein distance by bytes.
std::size_t edit_distance(const std::string& a, const std::string& b) {
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

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
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

CLI::Validator one_of(std::vector<std::string> allowed) {
  std::string description;
  for (const std::string& name : allowed) description += (description.empty() ? "{" : "|") + name;
  description += "}";
  return CLI::Validator(
      [allowed, description](std::string& value) {
        if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return std::string();
        const std::string near = nearest(value, allowed);
        return "expected " + description + ", found \"" + value + "\"" +
               (near.empty() ? "" : "; did you mean \"" + near + "\"?");
      },
      description);
}

}  // namespace strobe::cli
