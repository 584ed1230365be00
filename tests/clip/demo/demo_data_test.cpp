// The font and the annotations are Debian's, which scripts/packages names.
#include "clip/demo/demo_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "clip/demo/captions.h"
#include "clip/demo/cldr_annotations.h"
#include "clip/demo/emoji_font.h"
#include "strobe/types.h"

namespace strobe::clip {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;

constexpr char32_t kPanda = U'\U0001F43C';

class DemoDataTest : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  DemoDataOptions options(const std::string& name, int64_t limit) const {
    DemoDataOptions options;
    options.data = folder_ / name;
    options.limit = limit;
    return options;
  }

  static std::string read(const fs::path& file) {
    std::ostringstream content;
    content << std::ifstream(file).rdbuf();
    return content.str();
  }

  static std::vector<std::string> lines(const fs::path& file) {
    std::vector<std::string> result;
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) result.push_back(line);
    return result;
  }

  fs::path folder_ = fs::path(testing::TempDir()) / "clip_demo_data";
};

std::string message(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST_F(DemoDataTest, DrawsEachEmojiEightTimesForTrainingAndOnceMore) {
  const std::vector<DemoSplit> splits = write_demo_data(options("counts", 11));
  ASSERT_EQ(splits.size(), 3u);
  const std::vector<std::array<int64_t, 2>> expected = {{88, 88}, {6, 6}, {5, 5}};
  for (std::size_t i = 0; i < splits.size(); ++i) {
    EXPECT_EQ(splits[i].images, expected[i][0]);
    EXPECT_EQ(splits[i].texts, expected[i][1]);
    EXPECT_EQ(lines(folder_ / "counts" / (splits[i].name + "_imgs.tsv")).size(), static_cast<uint64_t>(expected[i][0]));
    EXPECT_EQ(lines(folder_ / "counts" / (splits[i].name + "_texts.jsonl")).size(),
              static_cast<uint64_t>(expected[i][1]));
  }
}

TEST_F(DemoDataTest, WritesTheSourceFormat) {
  write_demo_data(options("format", 3));
  std::set<int64_t> images;
  for (const std::string& line : lines(folder_ / "format/train_imgs.tsv")) {
    const std::size_t tab = line.find('\t');
    ASSERT_NE(tab, std::string::npos);
    EXPECT_TRUE(images.insert(std::stoll(line.substr(0, tab))).second);
    EXPECT_THAT(line.substr(tab + 1), testing::StartsWith("iVBORw0KGgo"));  // PNG's signature
    EXPECT_EQ((line.size() - tab - 1) % 4, 0u);
  }
  std::set<int64_t> texts;
  for (const std::string& line : lines(folder_ / "format/train_texts.jsonl")) {
    const nlohmann::json text = nlohmann::json::parse(line);
    EXPECT_TRUE(texts.insert(text.at("text_id").get<int64_t>()).second);
    EXPECT_FALSE(text.at("text").get<std::string>().empty());
    EXPECT_THAT(images, Contains(text.at("image_ids").at(0).get<int64_t>()));
  }
}

TEST_F(DemoDataTest, TakesTheCodePointsAskedFor) {
  DemoDataOptions animals = options("animals", 0);
  animals.first = kPanda;
  animals.last = kPanda + 1;  // and a pig's nose
  EXPECT_EQ(write_demo_data(animals).at(0).images, 16);
  EXPECT_THAT(lines(folder_ / "animals/valid_texts.jsonl").at(0), HasSubstr("熊猫"));
  animals.first = animals.last = 0x10FFFF;
  EXPECT_THAT(message([&] { write_demo_data(animals); }), HasSubstr("none of the annotated characters"));
}

TEST_F(DemoDataTest, IsTheSameAtEveryRun) {
  write_demo_data(options("a", 20));
  write_demo_data(options("b", 20));
  for (const char* file : {"train_imgs.tsv", "train_texts.jsonl", "valid_imgs.tsv", "test_texts.jsonl"}) {
    EXPECT_EQ(read(folder_ / "a" / file), read(folder_ / "b" / file)) << file;
  }
}

TEST_F(DemoDataTest, TestsAskInOtherWordsThanThoseTrainedOn) {
  write_demo_data(options("words", 40));
  const std::vector<std::string> training = lines(folder_ / "words/train_texts.jsonl");
  std::set<std::string> seen;
  for (const std::string& line : training) seen.insert(nlohmann::json::parse(line).at("text").get<std::string>());
  for (const char* file : {"words/valid_texts.jsonl", "words/test_texts.jsonl"}) {
    for (const std::string& line : lines(folder_ / file)) {
      EXPECT_FALSE(seen.contains(nlohmann::json::parse(line).at("text").get<std::string>())) << line;
    }
  }
}

TEST_F(DemoDataTest, WhatIsMissingIsNamedWithItsPackage) {
  DemoDataOptions no_font = options("font", 1);
  no_font.font = "/nowhere/emoji.ttf";
  EXPECT_THAT(message([&] { write_demo_data(no_font); }),
              AllOf(HasSubstr("/nowhere/emoji.ttf"), HasSubstr("fonts-noto-color-emoji")));
  DemoDataOptions no_names = options("names", 1);
  no_names.annotations = "/nowhere/zh.xml";
  EXPECT_THAT(message([&] { write_demo_data(no_names); }),
              AllOf(HasSubstr("/nowhere/zh.xml"), HasSubstr("unicode-cldr-core")));
  DemoDataOptions no_font_file = options("other", 1);
  no_font_file.font = no_font_file.annotations;
  EXPECT_THAT(message([&] { write_demo_data(no_font_file); }), HasSubstr("not a font"));
}

TEST(EmojiFontTest, HasThePandaInColourAndNoLetter) {
  const EmojiFont font(DemoDataOptions{}.font);
  const std::optional<Glyph> panda = font.glyph(kPanda);
  ASSERT_TRUE(panda);
  EXPECT_EQ(panda->width, 136);
  EXPECT_EQ(panda->height, 128);
  int64_t opaque = 0, coloured = 0;
  for (std::size_t i = 0; i < panda->pixels.size(); i += 4) {
    const uint8_t* pixel = panda->pixels.data() + i;
    for (int channel = 0; channel < 3; ++channel) ASSERT_LE(pixel[channel], pixel[3]);
    opaque += pixel[3] == 255;
    coloured += pixel[0] > 200;
  }
  EXPECT_GT(opaque, 136 * 128 / 3);
  EXPECT_GT(coloured, 136 * 128 / 8);  // its white face
  EXPECT_FALSE(font.glyph(U'x'));
}

TEST(CldrAnnotationsTest, NamesAndKeywordsOfThePanda) {
  const std::vector<CldrAnnotation> all = read_cldr_annotations(DemoDataOptions{}.annotations);
  EXPECT_GT(all.size(), 1500u);
  const auto panda =
      std::find_if(all.begin(), all.end(), [](const CldrAnnotation& each) { return each.code_point == kPanda; });
  ASSERT_NE(panda, all.end());
  EXPECT_EQ(panda->name, "熊猫");
  EXPECT_THAT(panda->keywords, Contains("脸"));
  EXPECT_THAT(panda->keywords, testing::Not(Contains("熊猫")));
}

TEST(CaptionsTest, KeywordsAreJoinedAndAnEmojiWithoutThemIsNamed) {
  const CldrAnnotation emoji{kPanda, "熊猫", {"脸", "动物"}};
  EXPECT_THAT(training_caption(emoji, 1), AllOf(HasSubstr("熊猫，"), HasSubstr("脸"), HasSubstr("、")));
  EXPECT_THAT(training_caption(emoji, 3), testing::Not(HasSubstr("熊猫")));
  EXPECT_THAT(training_caption({kPanda, "熊猫", {}}, 3), HasSubstr("熊猫"));
}

}  // namespace
}  // namespace strobe::clip
