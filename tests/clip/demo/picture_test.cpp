#include "clip/demo/picture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "strobe/types.h"

namespace strobe::clip {
namespace {

using testing::ElementsAre;
using testing::StartsWith;

TEST(PictureTest, ATransparentPixelShowsTheBackgroundAnOpaqueOneItself) {
  Picture picture(2, 1, Rgb{10, 20, 30});
  draw(picture, {2, 1, {0, 0, 0, 0, 200, 150, 100, 255}}, 0, 0);
  EXPECT_THAT(picture.pixels, ElementsAre(10, 20, 30, 200, 150, 100));
}

TEST(PictureTest, HalfOfBothShowsThroughAHalfTransparentPixel) {
  Picture picture(1, 1, Rgb{255, 255, 0});
  draw(picture, {1, 1, {128, 0, 64, 128}}, 0, 0);  // premultiplied: red at half, blue at a quarter
  EXPECT_THAT(picture.pixels, ElementsAre(255, 127, 64));
}

TEST(PictureTest, AGlyphMustLieInside) {
  Picture picture(2, 2, Rgb{});
  const Glyph glyph{1, 1, {1, 2, 3, 255}};
  draw(picture, glyph, 1, 1);
  EXPECT_EQ(picture.at(1, 1)[2], 3);
  EXPECT_THROW(draw(picture, glyph, 2, 1), Error);
  EXPECT_THROW(draw(picture, glyph, 0, -1), Error);
}

TEST(PictureTest, EncodesPng) { EXPECT_THAT(encode_png(Picture(3, 2, Rgb{1, 2, 3})), StartsWith("\x89PNG\r\n\x1a\n")); }

}  // namespace
}  // namespace strobe::clip
