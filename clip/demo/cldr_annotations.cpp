#include "clip/demo/cldr_annotations.h"

#include <unicode/utf8.h>

#include <algorithm>
#include <map>
#include <optional>
#include <pugixml.hpp>
#include <string_view>

#include "strobe/types.h"

namespace strobe::clip {
namespace {

constexpr std::string_view kSeparator = " | ";

[[noreturn]] void fail(const std::filesystem::path& file, const std::string& reason) {
  throw Error("annotations " + file.string() + ": " + reason +
              "; Debian and Ubuntu have them in the package unicode-cldr-core");
}

/// None for a sequence of code points, and for what is not UTF-8.
std::optional<char32_t> single_code_point(std::string_view text) {
  const auto size = static_cast<int32_t>(text.size());
  int32_t i = 0;
  UChar32 point = 0;
  if (text.empty()) return std::nullopt;
  U8_NEXT(text.data(), i, size, point);
  if (point < 0 || i != size) return std::nullopt;
  return static_cast<char32_t>(point);
}

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> words;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(kSeparator), text.size());
    words.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + kSeparator.size(), text.size()));
  }
  return words;
}

}  // namespace

std::vector<CldrAnnotation> read_cldr_annotations(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) fail(file, "no such file");
  pugi::xml_document document;
  const pugi::xml_parse_result parsed = document.load_file(file.c_str());
  if (!parsed) fail(file, parsed.description());
  std::map<char32_t, CldrAnnotation> found;
  for (const pugi::xml_node node : document.child("ldml").child("annotations").children("annotation")) {
    const std::optional<char32_t> point = single_code_point(node.attribute("cp").value());
    if (!point) continue;
    CldrAnnotation& annotation = found[*point];
    annotation.code_point = *point;
    if (std::string_view(node.attribute("type").value()) == "tts") {
      annotation.name = node.child_value();
    } else {
      annotation.keywords = split(node.child_value());
    }
  }
  if (found.empty()) fail(file, "it holds no annotations");
  std::vector<CldrAnnotation> all;
  for (auto& [point, annotation] : found) {
    if (annotation.name.empty()) continue;
    std::erase(annotation.keywords, annotation.name);
    all.push_back(std::move(annotation));
  }
  return all;
}

}  // namespace strobe::clip
