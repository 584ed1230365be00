// UTF-8 as the rest of nmt needs it: validity, code points, white space in Python's sense.
#pragma once

#include <cstddef>
#include <string_view>

namespace strobe::nmt {

/// One code point of a text and how many bytes it took.
struct CodePoint {
  char32_t value = 0;
  std::size_t bytes = 0;
};

/// The code point at `position` < text.size(). A byte that starts no well-formed sequence (RFC 3629: no overlong forms,
/// no surrogates, nothing above U+10FFFF) is one code point of its own, U+FFFD.
CodePoint code_point_at(std::string_view text, std::size_t position);

bool is_valid_utf8(std::string_view text);

/// What Python's str.split() takes for white space: the Unicode spaces and the separators U+001C to U+001F.
bool is_space(char32_t code_point);

/// The text without white space at its ends, and at its right end alone.
std::string_view trim(std::string_view text);
std::string_view trim_right(std::string_view text);

}  // namespace strobe::nmt
