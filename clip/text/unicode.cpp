#include "clip/text/unicode.h"

#include <unicode/uchar.h>
#include <unicode/unorm2.h>
#include <unicode/utf16.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "strobe/types.h"

namespace strobe::clip {
namespace {

constexpr char32_t kCapitalSigma = 0x3A3, kSigma = 0x3C3, kFinalSigma = 0x3C2;
constexpr char32_t kCapitalDottedI = 0x130, kCombiningDot = 0x307;
constexpr int kUnicodeMajor = 14;

UChar32 icu(char32_t c) { return static_cast<UChar32>(c); }

bool is_assigned(char32_t c) {
  UVersionInfo age;
  u_charAge(icu(c), age);
  return age[0] > 0 && (age[0] < kUnicodeMajor || (age[0] == kUnicodeMajor && age[1] == 0));
}

int category_of(char32_t c) { return is_assigned(c) ? u_charType(icu(c)) : int{U_UNASSIGNED}; }

bool is_cased(char32_t c) { return is_assigned(c) && u_hasBinaryProperty(icu(c), UCHAR_CASED); }
bool is_case_ignorable(char32_t c) { return is_assigned(c) && u_hasBinaryProperty(icu(c), UCHAR_CASE_IGNORABLE); }

/// Unicode's condition Final_Sigma: a letter before it and none after it, case-ignorable ones passed over.
bool is_final_sigma(std::u32string_view text, std::size_t at) {
  std::size_t before = at;
  while (before > 0 && is_case_ignorable(text[before - 1])) --before;
  if (before == 0 || !is_cased(text[before - 1])) return false;
  std::size_t after = at + 1;
  while (after < text.size() && is_case_ignorable(text[after])) ++after;
  return after == text.size() || !is_cased(text[after]);
}

bool is_ideograph(char32_t c) {
  struct Range {
    char32_t first, last;
  };
  // BERT's list, which ends with Unicode 8's extension E.
  static constexpr std::array kRanges{Range{0x4E00, 0x9FFF},   Range{0x3400, 0x4DBF},   Range{0xF900, 0xFAFF},
                                      Range{0x20000, 0x2A6DF}, Range{0x2A700, 0x2B73F}, Range{0x2B740, 0x2B81F},
                                      Range{0x2B820, 0x2CEAF}, Range{0x2F800, 0x2FA1F}};
  return c >= 0x3400 &&
         std::any_of(kRanges.begin(), kRanges.end(), [c](const Range& r) { return c >= r.first && c <= r.last; });
}

Role role_of_ascii(char32_t c) {
  if (c == ' ' || c == '\t' || c == '\n' || c == '\r') return Role::kSpace;
  if (c < ' ' || c == 0x7F) return Role::kDropped;
  const bool letter_or_digit = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
  return letter_or_digit ? Role::kPart : Role::kPunctuation;
}

const UNormalizer2* decomposer() {
  static const UNormalizer2* const instance = [] {
    UErrorCode status = U_ZERO_ERROR;
    const UNormalizer2* nfd = unorm2_getNFDInstance(&status);
    if (U_FAILURE(status)) throw Error(std::string("tokenizer: ICU has no NFD: ") + u_errorName(status));
    return nfd;
  }();
  return instance;
}

void append_decomposition(char32_t c, std::u32string& out) {
  constexpr int32_t kLongest = 8;  // UTF-16 units; NFD's longest is 4 code points
  UChar units[kLongest];
  UErrorCode status = U_ZERO_ERROR;
  const int32_t count = is_assigned(c) ? unorm2_getDecomposition(decomposer(), icu(c), units, kLongest, &status) : -1;
  if (count < 0 || U_FAILURE(status)) {
    out.push_back(c);
    return;
  }
  for (int32_t i = 0; i < count;) {
    UChar32 part;
    U16_NEXT(units, i, count, part);
    out.push_back(static_cast<char32_t>(part));
  }
}

int combining_class(char32_t c) { return is_assigned(c) ? u_getCombiningClass(icu(c)) : 0; }

/// Runs of marks go into the order of their combining classes. It shows even without the nonspacing ones: some spacing
/// marks have a class too.
void reorder_marks(std::u32string& text) {
  for (auto first = text.begin(); first != text.end();) {
    const auto last = std::find_if(first, text.end(), [](char32_t c) { return combining_class(c) == 0; });
    std::stable_sort(first, last, [](char32_t a, char32_t b) { return combining_class(a) < combining_class(b); });
    first = last == text.end() ? last : last + 1;
  }
}

}  // namespace

std::u32string decode_utf8(std::string_view bytes, const char* what) {
  std::u32string text;
  text.reserve(bytes.size());
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  const auto size = static_cast<int64_t>(bytes.size());
  for (int64_t i = 0; i < size;) {
    const int64_t start = i;
    UChar32 c;
    U8_NEXT(data, i, size, c);
    if (c < 0) {
      throw Error(std::string(what) + ": expected UTF-8, found the byte " + std::to_string(data[start]) +
                  " at position " + std::to_string(start));
    }
    text.push_back(static_cast<char32_t>(c));
  }
  return text;
}

std::string encode_utf8(std::u32string_view text) {
  std::string bytes;
  bytes.reserve(text.size() * 3);
  for (const char32_t c : text) {
    uint8_t units[U8_MAX_LENGTH];
    int32_t count = 0;
    U8_APPEND_UNSAFE(units, count, icu(c));
    bytes.append(reinterpret_cast<const char*>(units), static_cast<std::size_t>(count));
  }
  return bytes;
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

Role role_of(char32_t c) {
  if (c < 0x80) return role_of_ascii(c);
  if (is_ideograph(c)) return Role::kIdeograph;
  switch (category_of(c)) {
    case U_CONTROL_CHAR:
    case U_FORMAT_CHAR:
      return Role::kDropped;
    case U_SPACE_SEPARATOR:
    case U_LINE_SEPARATOR:
    case U_PARAGRAPH_SEPARATOR:
      return Role::kSpace;
    case U_DASH_PUNCTUATION:
    case U_START_PUNCTUATION:
    case U_END_PUNCTUATION:
    case U_CONNECTOR_PUNCTUATION:
    case U_OTHER_PUNCTUATION:
    case U_INITIAL_PUNCTUATION:
    case U_FINAL_PUNCTUATION:
      return Role::kPunctuation;
    default:
      return c == 0xFFFD ? Role::kDropped : Role::kPart;
  }
}

std::u32string to_lower(std::u32string_view text) {
  std::u32string lower;
  lower.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char32_t c = text[i];
    if (c < 0x80) {
      lower.push_back(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
    } else if (c == kCapitalSigma) {
      lower.push_back(is_final_sigma(text, i) ? kFinalSigma : kSigma);
    } else if (c == kCapitalDottedI) {  // the only letter whose lower case is longer whatever the language
      lower.push_back('i');
      lower.push_back(kCombiningDot);
    } else {
      lower.push_back(is_assigned(c) ? static_cast<char32_t>(u_tolower(icu(c))) : c);
    }
  }
  return lower;
}

std::u32string strip_accents(std::u32string_view text) {
  std::u32string decomposed;
  decomposed.reserve(text.size());
  for (const char32_t c : text) append_decomposition(c, decomposed);
  reorder_marks(decomposed);
  std::erase_if(decomposed, [](char32_t c) { return category_of(c) == U_NON_SPACING_MARK; });
  return decomposed;
}

}  // namespace strobe::clip
