#include "clip/demo/demo_data.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <nlohmann/json.hpp>

#include "clip/data/base64.h"
#include "clip/demo/captions.h"
#include "clip/demo/emoji_font.h"
#include "clip/demo/hash.h"
#include "strobe/types.h"

namespace strobe::clip {
namespace {

namespace fs = std::filesystem;

constexpr int kSmallestSide = 136;  // what Noto Color Emoji's bitmaps, 136 x 128, fit into
constexpr int kSides = 25;          // 136 .. 160 pixels
constexpr uint64_t kTrainingPictures = 8;
constexpr std::array kBackgrounds{Rgb{255, 255, 255}, Rgb{250, 240, 215}, Rgb{225, 240, 255}, Rgb{230, 250, 225},
                                  Rgb{255, 228, 232}, Rgb{236, 228, 250}, Rgb{220, 220, 220}, Rgb{200, 225, 220}};

/// The emoji at a place and on a background that its `number` chooses.
Image picture_of(const Glyph& glyph, char32_t code_point, uint64_t number) {
  auto choice = [&, drawn = uint64_t{0}](uint64_t among) mutable {
    return static_cast<int>(hash(code_point, 100 * (number + 1) + drawn++) % among);
  };
  const int side = std::max({kSmallestSide, glyph.width, glyph.height}) + choice(kSides);
  Image picture = blank_picture(side, side, kBackgrounds[static_cast<std::size_t>(choice(kBackgrounds.size()))]);
  const int x = choice(static_cast<uint64_t>(side - glyph.width + 1));
  const int y = choice(static_cast<uint64_t>(side - glyph.height + 1));
  draw(picture, glyph, x, y);
  return picture;
}

/// The two files of a split.
class SplitWriter {
 public:
  SplitWriter(const fs::path& folder, const std::string& name)
      : split_{name, 0, 0}, images_(folder / (name + "_imgs.tsv")), texts_(folder / (name + "_texts.jsonl")) {
    if (!images_ || !texts_) throw Error("demo data: cannot write to " + folder.string());
  }

  /// Returns the picture's id in the split, from 1.
  int64_t add_image(const Image& picture) {
    images_ << ++split_.images << '\t' << encode_base64(encode_png(picture)) << '\n';
    return split_.images;
  }

  void add_text(const std::string& text, int64_t image) {
    const nlohmann::ordered_json line = {{"text_id", ++split_.texts}, {"text", text}, {"image_ids", {image}}};
    texts_ << line << '\n';
  }

  DemoSplit finish() {
    images_.close();
    texts_.close();
    if (!images_ || !texts_) throw Error("demo data: " + split_.name + ": cannot be written");
    return split_;
  }

 private:
  DemoSplit split_;
  std::ofstream images_, texts_;
};

}  // namespace

std::vector<DemoSplit> write_demo_data(const DemoDataOptions& options) {
  const EmojiFont font(options.font);
  const std::vector<CldrAnnotation> annotations = read_cldr_annotations(options.annotations);
  fs::create_directories(options.data);
  SplitWriter train(options.data, "train"), valid(options.data, "valid"), test(options.data, "test");
  int64_t drawn = 0;
  for (const CldrAnnotation& emoji : annotations) {
    if (options.limit > 0 && drawn == options.limit) break;
    if (emoji.code_point < options.first || emoji.code_point > options.last) continue;
    const std::optional<Glyph> glyph = font.glyph(emoji.code_point);
    if (!glyph) continue;
    for (uint64_t i = 0; i < kTrainingPictures; ++i) {
      const int64_t image = train.add_image(picture_of(*glyph, emoji.code_point, i));
      train.add_text(training_caption(emoji, i), image);
    }
    SplitWriter& unseen = drawn % 2 == 0 ? valid : test;
    const int64_t image = unseen.add_image(picture_of(*glyph, emoji.code_point, kTrainingPictures));
    unseen.add_text(test_caption(emoji, kTrainingPictures), image);
    ++drawn;
  }
  if (drawn == 0) throw Error("demo data: " + options.font.string() + " has none of the annotated characters");
  return {train.finish(), valid.finish(), test.finish()};
}

}  // namespace strobe::clip
