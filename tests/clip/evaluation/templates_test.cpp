#include "clip/evaluation/templates.h"

#include "clip/text/installed_package.h"
#include "strobe/types.h"
#include "tests/clip/evaluation/folder_test.h"
#include "tests/message_of.h"

namespace strobe::clip {
namespace {

using Templates = FolderTest;

TEST_F(Templates, OfTheInstalledPackageAreAllRead) {
  const std::filesystem::path file = default_templates();
  EXPECT_EQ(read_templates(file, "openai_templates").size(), 183U);
  EXPECT_EQ(read_templates(file, "flower_templates").size(), 32U);
  EXPECT_EQ(read_templates(file, "food_templates").size(), 21U);
  EXPECT_EQ(read_templates(file, "aircraft_templates").size(), 100U);
  EXPECT_EQ(read_templates(file, "eurosat_templates").size(), 24U);
  EXPECT_EQ(read_templates(file, "country211_templates").size(), 4U);
  EXPECT_EQ(read_templates(file, "openai_templates").front(), "{c}的照片");
}

TEST_F(Templates, EachDataSetHasItsOwn) {
  EXPECT_EQ(template_set("food-101"), "food_templates");
  EXPECT_EQ(template_set("resisc45_clip"), "eurosat_templates");
  EXPECT_EQ(template_set("imagenet"), "openai_templates");
  EXPECT_EQ(template_set("openai"), "openai_templates");
}

TEST_F(Templates, AreFilledWhereverTheNameGoes) {
  EXPECT_EQ(fill_template("一张{c}的照片", "猫"), "一张猫的照片");
  EXPECT_EQ(fill_template("{c}和{c}", "a"), "a和a");
  EXPECT_EQ(fill_template("x", "a"), "x");
}

TEST_F(Templates, NothingElseIsGuessedAt) {
  const auto message = [&](const std::string& list) {
    const auto file = write("t.py", "\"\"\"x\"\"\"\na = [" + list + "]\n");
    return message_of<Error>([&] { read_templates(file, "a"); });
  };
  EXPECT_EQ(message("lambda c: f\"{c}x\", lambda c: f\"{c}\",\n"), "");
  EXPECT_NE(message(""), "");
  EXPECT_NE(message("lambda c: c.upper()"), "");
  EXPECT_NE(message("lambda c: f\"{c!r}\""), "");
  EXPECT_NE(message("lambda c: f\"{c}{d}\""), "");
  EXPECT_NE(message("lambda c: f\"x\""), "");
  EXPECT_NE(message("lambda c: f\"{c}\\n\""), "");
  EXPECT_NE(message("lambda c: f\"{c}\" lambda c: f\"{c}\""), "");
  EXPECT_NE(message("lambda c: f\"{c}\" # ").find("comma after template 1"), std::string::npos);
  const auto file = write("t.py", "a = [\n");
  EXPECT_NE(message_of<Error>([&] { read_templates(file, "a"); }), "");
  EXPECT_NE(message_of<Error>([&] { read_templates(file, "b"); }).find("no such set"), std::string::npos);
}

}  // namespace
}  // namespace strobe::clip
