// The tokenizers of sacreBLEU 2.6.0, quirks included: a score means something only beside scores computed in the same
// way.
#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "nmt/bleu.h"
#include "nmt/text.h"
#include "strobe/types.h"

namespace strobe::nmt {
namespace {

struct Range {
  char32_t first, last;
};

/// What "zh" sets apart as single tokens. sacreBLEU writes the ranges of the supplementary planes with four hexadecimal
/// digits too few, which makes them U+2001 to U+2A6D (curly quotes, dashes, arrows, mathematical signs) and leaves
/// Extension B itself (U+20000 and up) in one piece. Sorted, neighbours merged.
constexpr std::array<Range, 13> kChineseRanges{{{0x2001, 0x2A6D},
                                                {0x2E80, 0x2FDF},
                                                {0x2FF0, 0x303F},
                                                {0x3100, 0x312F},
                                                {0x31A0, 0x31BF},
                                                {0x31C0, 0x31EF},
                                                {0x3200, 0x4DB5},
                                                {0x4E00, 0x9FBB},
                                                {0xF900, 0xFA2D},
                                                {0xFA30, 0xFA6A},
                                                {0xFA70, 0xFAD9},
                                                {0xFE10, 0xFE1F},
                                                {0xFE30, 0xFE4F}}};
constexpr Range kFullWidthForms{0xFF00, 0xFFEF};

bool is_chinese(char32_t c) {
  if (c >= kFullWidthForms.first) return c <= kFullWidthForms.last;
  const auto range = std::upper_bound(kChineseRanges.begin(), kChineseRanges.end(), c,
                                      [](char32_t value, const Range& r) { return value < r.first; });
  return range != kChineseRanges.begin() && c <= std::prev(range)->last;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_point(char c) { return c == '.' || c == ','; }

/// ASCII punctuation but for the apostrophe, comma, hyphen and full stop.
bool is_symbol(char c) {
  return (c >= ' ' && c <= '&') || (c >= '(' && c <= '+') || c == '/' || (c >= ':' && c <= '@') ||
         (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

/// Replaces each pair of neighbouring bytes that `matches`, from the left and without overlap, by before + first +
/// between + second + after. On UTF-8 this does what the same pattern does on code points: what must match exactly is
/// ASCII.
template <typename Matches>
std::string replace_pairs(std::string_view text, Matches matches, std::string_view before, std::string_view between,
                          std::string_view after) {
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (i + 1 == text.size() || !matches(text[i], text[i + 1])) {
      out += text[i];
      continue;
    }
    out.append(before).append(1, text[i]).append(between).append(1, text[i + 1]).append(after);
    ++i;
  }
  return out;
}

/// The rules that "13a" and "zh" share, those of mteval-v13a.pl for Western languages.
std::string split_punctuation(std::string_view text) {
  std::string line;
  line.reserve(text.size() * 2);
  for (const char c : text) is_symbol(c) ? line.append({' ', c, ' '}) : line.append(1, c);
  const auto point_after_other = [](char a, char b) { return !is_digit(a) && is_point(b); };
  const auto point_before_other = [](char a, char b) { return is_point(a) && !is_digit(b); };
  const auto dash_after_digit = [](char a, char b) { return is_digit(a) && b == '-'; };
  line = replace_pairs(line, point_after_other, "", " ", " ");
  line = replace_pairs(line, point_before_other, " ", " ", "");
  return replace_pairs(line, dash_after_digit, "", " ", " ");
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  std::size_t found = text.find(from);
  if (found == std::string::npos) return;
  std::string out;
  std::size_t start = 0;
  for (; found != std::string::npos; found = text.find(from, start)) {
    out.append(text, start, found - start).append(to);
    start = found + from.size();
  }
  text = out.append(text, start);
}

std::string tokenize_13a(std::string_view text) {
  std::string line(text);
  replace_all(line, "<skipped>", "");
  replace_all(line, "-\n", "");
  replace_all(line, "\n", " ");
  replace_all(line, "&quot;", "\"");
  replace_all(line, "&amp;", "&");
  replace_all(line, "&lt;", "<");
  replace_all(line, "&gt;", ">");
  line.insert(line.begin(), ' ');
  return split_punctuation(line.append(1, ' '));
}

template <typename Apart>
std::string set_apart(std::string_view text, Apart apart) {
  std::string line;
  line.reserve(text.size() * 2);
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint point = code_point_at(text, i);
    const bool alone = apart(point.value);
    if (alone) line += ' ';
    line += text.substr(i, point.bytes);
    if (alone) line += ' ';
    i += point.bytes;
  }
  return line;
}

std::string single_spaces(std::string_view text) {
  std::string line;
  line.reserve(text.size());
  bool gap = false;
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint point = code_point_at(text, i);
    if (is_space(point.value)) {
      gap = true;
    } else {
      if (gap && !line.empty()) line += ' ';
      line += text.substr(i, point.bytes);
      gap = false;
    }
    i += point.bytes;
  }
  return line;
}

constexpr std::array<std::string_view, 4> kNames{"zh", "13a", "char", "none"};

}  // namespace

std::string_view name(BleuTokenizer tokenizer) { return kNames[static_cast<std::size_t>(tokenizer)]; }

BleuTokenizer bleu_tokenizer(std::string_view name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end()) {
    throw Error("bleu_tokenizer: name: expected zh, 13a, char or none, found \"" + std::string(name) + "\"");
  }
  return static_cast<BleuTokenizer>(found - kNames.begin());
}

std::string tokenize(std::string_view sentence, BleuTokenizer tokenizer) {
  const std::string_view text = trim_right(sentence);
  switch (tokenizer) {
    case BleuTokenizer::kZh:
      return single_spaces(split_punctuation(set_apart(trim(text), is_chinese)));
    case BleuTokenizer::k13a:
      return single_spaces(tokenize_13a(text));
    case BleuTokenizer::kChar:
      return single_spaces(set_apart(text, [](char32_t) { return true; }));
    case BleuTokenizer::kNone:
      break;
  }
  return single_spaces(text);
}

}  // namespace strobe::nmt
