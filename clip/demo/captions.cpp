#include "clip/demo/captions.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "clip/demo/hash.h"

namespace strobe::clip {
namespace {

constexpr std::array kTrainingWordings{"{}", "{}的表情符号", "一张{}的图片", "图中是{}"};
constexpr std::array kTestWordings{"这是{}", "{}的小图标", "画的是{}"};
constexpr std::size_t kMaxKeywords = 4;

template <std::size_t N>
std::string worded(const std::array<const char*, N>& wordings, uint64_t choice, const std::string& what) {
  return fmt::format(fmt::runtime(wordings[choice % N]), what);
}

/// Some of the keywords, rotated by `choice`.
std::string keywords(const CldrAnnotation& emoji, uint64_t choice) {
  std::vector<std::string> words = emoji.keywords;
  std::rotate(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(choice % words.size()), words.end());
  words.resize(std::min(words.size(), kMaxKeywords));
  return fmt::format("{}", fmt::join(words, "、"));
}

}  // namespace

std::string training_caption(const CldrAnnotation& emoji, uint64_t number) {
  const uint64_t choice = hash(emoji.code_point, number);
  if (number % 2 == 0 || emoji.keywords.empty()) return worded(kTrainingWordings, choice, emoji.name);
  return number % 4 == 1 ? emoji.name + "，" + keywords(emoji, choice) : keywords(emoji, choice);
}

std::string test_caption(const CldrAnnotation& emoji, uint64_t number) {
  return worded(kTestWordings, hash(emoji.code_point, number), emoji.name);
}

}  // namespace strobe::clip
