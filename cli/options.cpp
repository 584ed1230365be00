#include "cli/options.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <set>

#include "ops/nearest_name.h"

namespace strobe::cli {
namespace {

std::string quoted(const std::string& word) {
  const auto is_plain = [](unsigned char c) { return std::isalnum(c) != 0 || std::strchr("_-./,:=+@%", c) != nullptr; };
  if (!word.empty() && std::all_of(word.begin(), word.end(), is_plain)) return word;
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

}  // namespace

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

std::string path_of(const CLI::App& command) {
  const CLI::App* parent = command.get_parent();
  return parent == nullptr ? command.get_name() : path_of(*parent) + " " + command.get_name();
}

std::string command_line(const CLI::App& command) {
  std::string text = path_of(command);
  std::set<const CLI::Option*> seen;  // an option with several values stands there once for each
  for (const CLI::Option* option : command.parse_order()) {
    if (!seen.insert(option).second) continue;
    text += " " + option->get_name();
    if (option->get_items_expected_max() == 0) continue;
    for (const std::string& value : option->results()) text += " " + quoted(value);
  }
  return text;
}

}  // namespace strobe::cli
