#include "clip/evaluation/templates.h"

#include <fmt/format.h>

#include <array>
#include <fstream>
#include <iterator>
#include <utility>

#include "strobe/types.h"

namespace strobe::clip {
namespace {

constexpr std::string_view kName = "{c}";

std::string read_file(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(stream), {}};
  if (!stream) throw Error("templates " + file.string() + ": cannot be read");
  return text;
}

/// Takes `token`, white space before it aside.
bool take(std::string_view& text, std::string_view token) {
  const std::size_t start = std::min(text.find_first_not_of(" \t\r\n"), text.size());
  if (!text.substr(start).starts_with(token)) return false;
  text.remove_prefix(start + token.size());
  return true;
}

/// An f-string's content. No template needs an escape or other braces than {c}; they are refused, not guessed at.
bool take_template(std::string_view& text, std::string& content) {
  if (!take(text, "lambda c: f\"")) return false;
  const std::size_t end = text.find_first_of("\"\n\\");
  if (end == std::string_view::npos || text[end] != '"') return false;
  content = text.substr(0, end);
  text.remove_prefix(end + 1);
  const std::string rest = fill_template(content, "");
  return rest.size() < content.size() && rest.find_first_of("{}") == std::string::npos;
}

}  // namespace

std::string template_set(std::string_view dataset) {
  static constexpr std::array<std::pair<std::string_view, const char*>, 6> kSets{
      {{"fgvc-aircraft-2013b-variants102", "aircraft_templates"},
       {"food-101", "food_templates"},
       {"oxford-flower-102", "flower_templates"},
       {"eurosat_clip", "eurosat_templates"},
       {"resisc45_clip", "eurosat_templates"},
       {"country211", "country211_templates"}}};
  for (const auto& [name, set] : kSets) {
    if (name == dataset) return set;
  }
  return "openai_templates";
}

std::vector<std::string> read_templates(const std::filesystem::path& file, std::string_view set) {
  const std::string whole = fmt::format("\n{}", read_file(file));
  const std::string where = fmt::format("templates {}: {}", file.string(), set);
  const std::string start = fmt::format("\n{} = [", set);
  const std::size_t found = whole.find(start);
  if (found == std::string::npos) throw Error(where + ": there is no such set");
  std::string_view text = std::string_view(whole).substr(found + start.size());
  std::vector<std::string> templates;
  while (!take(text, "]")) {
    std::string content;
    if (!take_template(text, content)) {
      throw Error(where + ": expected lambda c: f\"...{c}...\" for template " + std::to_string(templates.size() + 1));
    }
    templates.push_back(std::move(content));
    if (!take(text, ",") && !text.substr(std::min(text.find_first_not_of(" \t\r\n"), text.size())).starts_with("]")) {
      throw Error(where + ": expected a comma after template " + std::to_string(templates.size()));
    }
  }
  if (templates.empty()) throw Error(where + ": holds no template");
  return templates;
}

std::string fill_template(std::string_view text, std::string_view class_name) {
  std::string filled;
  while (true) {
    const std::size_t place = text.find(kName);
    filled += text.substr(0, place);
    if (place == std::string_view::npos) return filled;
    filled += class_name;
    text.remove_prefix(place + kName.size());
  }
}

}  // namespace strobe::clip
