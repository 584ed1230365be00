#include "nmt/text.h"

#include <gtest/gtest.h>

#include <string>

namespace strobe::nmt {
namespace {

TEST(Text, DecodesSequencesOfEveryLength) {
  const std::string text = "a\xC3\xA9\xE4\xB8\xAD\xF0\xA0\x80\x80";  // a, U+00E9, U+4E2D, U+20000
  std::size_t position = 0;
  for (const char32_t expected : {U'a', U'\u00E9', U'\u4E2D', U'\U00020000'}) {
    const CodePoint point = code_point_at(text, position);
    EXPECT_EQ(point.value, expected);
    position += point.bytes;
  }
  EXPECT_EQ(position, text.size());
  EXPECT_TRUE(is_valid_utf8(text));
}

TEST(Text, RejectsWhatRfc3629Rejects) {
  const char* const malformed[] = {"\x80",              // a continuation byte alone
                                   "\xC3",              // cut short
                                   "\xE4\xB8",          //
                                   "\xF0\xA0\x80",      //
                                   "\xC3(",             // no continuation
                                   "\xC0\xAF",          // overlong, two bytes
                                   "\xE0\x80\xAF",      // overlong, three bytes
                                   "\xF0\x80\x80\xAF",  // overlong, four bytes
                                   "\xED\xA0\x80",      // a surrogate
                                   "\xF4\x90\x80\x80",  // above U+10FFFF
                                   "\xFF"};
  for (const char* text : malformed) {
    EXPECT_FALSE(is_valid_utf8(text));
    EXPECT_FALSE(is_valid_utf8(std::string("abc") + text + "def"));
    EXPECT_EQ(code_point_at(text, 0).bytes, 1u);
  }
  EXPECT_TRUE(is_valid_utf8(""));
  EXPECT_TRUE(is_valid_utf8("\xEF\xBF\xBD"));  // a true U+FFFD
  EXPECT_TRUE(is_valid_utf8("\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF"));
}

TEST(Text, TrimsUnicodeWhiteSpace) {
  EXPECT_EQ(trim(" \t\u3000\u00A0a b\u2003\u0085\n"), "a b");
  EXPECT_EQ(trim_right(" a \x1F\u205F"), " a");
  EXPECT_EQ(trim("\u2028 \r"), "");
  EXPECT_EQ(trim("\u200Ba"), "\u200Ba");  // a zero-width space is no white space
}

}  // namespace
}  // namespace strobe::nmt
