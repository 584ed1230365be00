#include "clip/demo/picture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "strobe/types.h"

namespace strobe::clip {
namespace {

using testing::ElementsAre;

TEST(PictureTest, ATransparentPixelShowsTheBackgroundAnOpaqueOneItself) {
  Image picture = blank_picture(2, 1, Rgb{10, 20, 30});
  draw(picture, {2, 1, {0, 0, 0, 0, 200, 150, 100, 255}}, 0, 0);
  EXPECT_THAT(picture.pixels, ElementsAre(10, 20, 30, 200, 150, 100));
}

TEST(PictureTest, HalfOfBothShowsThroughAHalfTransparentPixel) {
  Image picture = blank_picture(1, 1, Rgb{255, 255, 0});
  draw(picture, {1, 1, {128, 0, 64, 128}}, 0, 0);  // premultiplied: red at half, blue at a quarter
  EXPECT_THAT(picture.pixels, ElementsAre(255, 127, 64));
}

TEST(PictureTest, AGlyphMustLieInside) {
  Image picture = blank_picture(2, 2, Rgb{});
  const Glyph glyph{1, 1, {1, 2, 3, 255}};
  draw(picture, glyph, 1, 1);
  EXPECT_EQ(picture.row(1)[3 * 1 + 2], 3);
  EXPECT_THROW(draw(picture, glyph, 2, 1), Error);
  EXPECT_THROW(draw(picture, glyph, 0, -1), Error);
}

TEST(PictureTest, PastesAPart) {
  Image picture = blank_picture(3, 2, Rgb{9, 9, 9});
  paste(picture, blank_picture(2, 1, Rgb{1, 2, 3}), 1, 1);
  EXPECT_THAT(picture.pixels, ElementsAre(9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 1, 2, 3, 1, 2, 3));
  EXPECT_THROW(paste(picture, blank_picture(2, 1, Rgb{}), 2, 1), Error);
}

TEST(PictureTest, PngKeepsEveryPixel) {
  Image picture = blank_picture(3, 2, Rgb{1, 2, 3});
  picture.row(1)[4] = 200;
  const Image read = decode_image(encode_png(picture));
  EXPECT_EQ(read.mode, ImageMode::kRgb);
  EXPECT_EQ(read.width, 3);
  EXPECT_EQ(read.pixels, picture.pixels);
}

}  // namespace
}  // namespace strobe::clip
