// The built-in data set: emoji with their Chinese names and keywords, in the source format of Chinese-CLIP's data sets.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace strobe::clip {

struct DemoDataOptions {
  std::filesystem::path data;  // the folder to write to
  std::filesystem::path font = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf";
  std::filesystem::path annotations = "/usr/share/unicode/cldr/common/annotations/zh.xml";
  char32_t first = 0x80, last = 0x10FFFF;  // code points to take; below the first the font has digits, parts of keycaps
  int64_t limit = 0;                       // the first so many emoji of these; 0: all
};

struct DemoSplit {
  std::string name;
  int64_t images = 0;
  int64_t texts = 0;
};

/// Writes {train,valid,test}_imgs.tsv (id, tab, base64 of a PNG of 136 to 160 pixels a side) and _texts.jsonl. An emoji
/// that the font has as one code point and that has a Chinese name is drawn eight times for training, on backgrounds
/// and at places that differ, with a caption each time; once more, otherwise, with a caption in other words, in turn
/// for validation and for the test. So these two ask for what is known in pictures and words that are not. The same
/// bytes at every run. Throws strobe::Error for a font or annotations that are missing, and for what cannot be written.
std::vector<DemoSplit> write_demo_data(const DemoDataOptions& options);

}  // namespace strobe::clip
