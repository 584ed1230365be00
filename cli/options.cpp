#include "cli/options.h"

#include <algorithm>

#include "ops/nearest_name.h"

namespace strobe::cli {

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
  return ops::nearest_name(word, candidates);
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
