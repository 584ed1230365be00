#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace strobe::clip {

/// Python's base64.urlsafe_b64decode: both alphabets (+/ and -_) count, other characters are skipped, and what follows
/// the padding is ignored. Nothing where the padding is wrong or the count of characters cannot be.
std::optional<std::string> decode_base64(std::string_view text);

/// The standard alphabet with padding, in one line.
std::string encode_base64(std::string_view bytes);

}  // namespace strobe::clip
