#include "nmt/text.h"

namespace strobe::nmt {
namespace {

constexpr CodePoint kMalformed{0xFFFD, 1};

bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

}  // namespace

CodePoint code_point_at(std::string_view text, std::size_t position) {
  const auto first = static_cast<unsigned char>(text[position]);
  if (first < 0x80) return {first, 1};
  if (first < 0xC2 || first > 0xF4) return kMalformed;
  const std::size_t bytes = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  if (text.size() - position < bytes) return kMalformed;
  char32_t value = first & (0x7F >> bytes);
  for (std::size_t i = 1; i < bytes; ++i) {
    if (!is_continuation(text[position + i])) return kMalformed;
    value = (value << 6) | (static_cast<unsigned char>(text[position + i]) & 0x3F);
  }
  const bool overlong = (bytes == 3 && value < 0x800) || (bytes == 4 && value < 0x10000);
  const bool surrogate = value >= 0xD800 && value <= 0xDFFF;
  if (overlong || surrogate || value > 0x10FFFF) return kMalformed;
  return {value, bytes};
}

bool is_valid_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint point = code_point_at(text, i);
    if (point.value == 0xFFFD && point.bytes == 1) return false;  // a true U+FFFD has three bytes
    i += point.bytes;
  }
  return true;
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::string_view trim_right(std::string_view text) {
  std::size_t end = 0;
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint point = code_point_at(text, i);
    i += point.bytes;
    if (!is_space(point.value)) end = i;
  }
  return text.substr(0, end);
}

std::string_view trim(std::string_view text) {
  text = trim_right(text);
  while (!text.empty()) {
    const CodePoint point = code_point_at(text, 0);
    if (!is_space(point.value)) break;
    text.remove_prefix(point.bytes);
  }
  return text;
}

}  // namespace strobe::nmt
