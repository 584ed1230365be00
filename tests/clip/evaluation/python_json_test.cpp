#include "clip/evaluation/python_json.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace strobe::clip {
namespace {

std::string repr(double value) {
  std::string out;
  append_float(out, value);
  return out;
}

TEST(PythonJson, FloatsAreWrittenAsRepr) {
  EXPECT_EQ(repr(0.0), "0.0");
  EXPECT_EQ(repr(-0.0), "-0.0");
  EXPECT_EQ(repr(1.0), "1.0");
  EXPECT_EQ(repr(0.1), "0.1");
  EXPECT_EQ(repr(static_cast<double>(0.1F)), "0.10000000149011612");
  EXPECT_EQ(repr(0.0001), "0.0001");
  EXPECT_EQ(repr(0.00001), "1e-05");
  EXPECT_EQ(repr(-0.000012345), "-1.2345e-05");
  EXPECT_EQ(repr(1e15), "1000000000000000.0");
  EXPECT_EQ(repr(1e16), "1e+16");
  EXPECT_EQ(repr(1.5e300), "1.5e+300");
  EXPECT_EQ(repr(123456.789), "123456.789");
  EXPECT_EQ(repr(5e-324), "5e-324");
  EXPECT_EQ(repr(std::numeric_limits<double>::infinity()), "Infinity");
}

TEST(PythonJson, StringsAreAscii) {
  std::string out;
  append_string(out, "a\"\\/\n\x01\x7f中😀");
  EXPECT_EQ(out, R"("a\"\\/\n\u0001\u007f\u4e2d\ud83d\ude00")");
}

TEST(PythonJson, IdsKeepTheirKind) {
  EXPECT_EQ(ids_line("text_id", {"7", true}, "image_ids", {{"7", false}, {"-12", true}, {"图", false}}),
            "{\"text_id\": 7, \"image_ids\": [\"7\", -12, \"\\u56fe\"]}\n");
  EXPECT_EQ(ids_line("image_id", {"x", false}, "text_ids", {}), "{\"image_id\": \"x\", \"text_ids\": []}\n");
}

TEST(Id, AKeyThatIsWrittenLikeAnIntegerIsOne) {
  for (const char* key : {"0", "7", "-12", "7454547004", "123456789012345678901234567890"}) {
    EXPECT_TRUE(id_of_key(key).is_integer) << key;
  }
  for (const char* key : {"", "-", "007", "-0", "1.5", "+1", " 1", "a1"})
    EXPECT_FALSE(id_of_key(key).is_integer) << key;
}

}  // namespace
}  // namespace strobe::clip
