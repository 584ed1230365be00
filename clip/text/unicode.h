// What the tokenizer asks of Unicode, as of version 14.0: a code point that was assigned later, or never, has no case,
// no decomposition and no category. That makes ICU 70 and later agree with Python 3.11's unicodedata on all code
// points.
#pragma once

#include <string>
#include <string_view>

namespace strobe::clip {

/// Throws strobe::Error naming `what` and the first byte that is not UTF-8.
std::u32string decode_utf8(std::string_view bytes, const char* what);
std::string encode_utf8(std::u32string_view text);

/// Python's str.isspace for one code point.
bool is_space(char32_t c);

/// What BERT's basic tokenizer does with a code point.
enum class Role { kPart, kDropped, kSpace, kIdeograph, kPunctuation };
Role role_of(char32_t c);

/// The full lower-case mapping without a language: Python's str.lower.
std::u32string to_lower(std::u32string_view text);

/// The canonical decomposition (NFD) without nonspacing marks (category Mn).
std::u32string strip_accents(std::u32string_view text);

}  // namespace strobe::clip
