// Pictures of emoji from a font of colour bitmaps, such as Noto Color Emoji.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "clip/demo/picture.h"

namespace strobe::clip {

class EmojiFont {
 public:
  /// Throws strobe::Error for a file that is missing or that holds no colour bitmaps.
  explicit EmojiFont(const std::filesystem::path& file);
  ~EmojiFont();
  EmojiFont(const EmojiFont&) = delete;
  EmojiFont& operator=(const EmojiFont&) = delete;

  /// The bitmap of one code point, or none where the font has none in colour.
  std::optional<Glyph> glyph(char32_t code_point) const;

 private:
  struct Face;

  std::unique_ptr<Face> face_;
};

}  // namespace strobe::clip
