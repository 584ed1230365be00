#include "clip/demo/picture_sheet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "clip/data/base64.h"
#include "clip/data/lmdb.h"
#include "clip/demo/picture.h"

namespace strobe::clip {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;

constexpr int kSide = 16, kStep = 20, kGap = 4;

class PictureSheetTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "imgs");
    LmdbWriter images(folder_ / "imgs");
    images.put("1", encode_base64(encode_png(blank_picture(8, 8, Rgb{200, 0, 0}))));
    images.put("2", encode_base64(encode_png(blank_picture(30, 10, Rgb{0, 200, 0}))));
    images.put("3", encode_base64("no picture"));
    images.finish();
    write("texts.jsonl", R"({"text_id": 7, "text": "红色"})"
                         "\n");
    options_.predictions = folder_ / "predictions.jsonl";
    options_.images = folder_ / "imgs";
    options_.texts = folder_ / "texts.jsonl";
    options_.output = folder_ / "sheet.png";
    options_.columns = 3;
    options_.side = kSide;
  }
  void TearDown() override { fs::remove_all(folder_); }

  void write(const std::string& name, const std::string& content) { std::ofstream(folder_ / name) << content; }

  Image sheet() const {
    std::ostringstream bytes;
    bytes << std::ifstream(options_.output).rdbuf();
    return decode_image(bytes.str());
  }

  static std::vector<int> colour(const Image& picture, int column, int row) {
    const uint8_t* pixel = picture.row(row * kStep + kGap + kSide / 2) + 3 * (column * kStep + kGap + kSide / 2);
    return {pixel[0], pixel[1], pixel[2]};
  }

  fs::path folder_ = fs::path(testing::TempDir()) / "clip_picture_sheet";
  SheetOptions options_;
};

TEST_F(PictureSheetTest, HasARowAQueryTheBestOnTheLeft) {
  write("predictions.jsonl", "{\"text_id\": 7, \"image_ids\": [2, 1, 3, 9]}\n{\"text_id\": 8, \"image_ids\": [4]}\n");
  std::vector<std::string> rows;
  write_picture_sheet(options_, [&](const std::string& query, const std::vector<std::string>& ids) {
    rows.push_back(query + " " + std::to_string(ids.size()));
  });
  EXPECT_THAT(rows, ElementsAre("红色 3", "8 1"));
  const Image picture = sheet();
  EXPECT_EQ(picture.width, 3 * kStep + kGap);
  EXPECT_EQ(picture.height, 2 * kStep + kGap);
  EXPECT_THAT(colour(picture, 0, 0), ElementsAre(0, 200, 0));
  EXPECT_THAT(colour(picture, 1, 0), ElementsAre(200, 0, 0));
  const auto missing = ElementsAre(160, 160, 160);
  EXPECT_THAT(colour(picture, 2, 0), missing);  // no picture
  EXPECT_THAT(colour(picture, 0, 1), missing);  // no such key
  EXPECT_THAT(colour(picture, 1, 1), ElementsAre(255, 255, 255));
}

TEST_F(PictureSheetTest, RefusesWhatIsNoPrediction) {
  const auto ignore = [](const std::string&, const std::vector<std::string>&) {};
  EXPECT_THROW(write_picture_sheet(options_, ignore), Error);  // no file
  for (const char* line : {"", "[]\n", "{\"text_id\": 1}\n", "{\"text_id\": 1, \"image_ids\": 2}\n", "{\n"}) {
    write("predictions.jsonl", line);
    EXPECT_THROW(write_picture_sheet(options_, ignore), Error) << line;
  }
}

}  // namespace
}  // namespace strobe::clip
