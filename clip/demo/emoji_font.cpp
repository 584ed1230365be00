#include "clip/demo/emoji_font.h"

#include <ft2build.h>
#include FT_FREETYPE_H

#include "strobe/types.h"

namespace strobe::clip {
namespace {

[[noreturn]] void fail(const std::filesystem::path& file, const std::string& reason) {
  throw Error("emoji font " + file.string() + ": " + reason +
              "; Debian and Ubuntu have it in the package fonts-noto-color-emoji");
}

}  // namespace

struct EmojiFont::Face {
  FT_Library library = nullptr;
  FT_Face face = nullptr;

  ~Face() {
    if (face) FT_Done_Face(face);
    if (library) FT_Done_FreeType(library);
  }
};

EmojiFont::EmojiFont(const std::filesystem::path& file) : face_(std::make_unique<Face>()) {
  if (!std::filesystem::exists(file)) fail(file, "no such file");
  if (FT_Init_FreeType(&face_->library) != 0) fail(file, "FreeType does not start");
  if (FT_New_Face(face_->library, file.c_str(), /*face_index=*/0, &face_->face) != 0) fail(file, "not a font");
  if (!FT_HAS_COLOR(face_->face) || face_->face->num_fixed_sizes == 0) fail(file, "it has no colour bitmaps");
  if (FT_Select_Size(face_->face, /*strike_index=*/0) != 0) fail(file, "its bitmaps cannot be read");
}

EmojiFont::~EmojiFont() = default;

std::optional<Glyph> EmojiFont::glyph(char32_t code_point) const {
  const FT_UInt index = FT_Get_Char_Index(face_->face, code_point);
  if (index == 0 || FT_Load_Glyph(face_->face, index, FT_LOAD_COLOR) != 0) return std::nullopt;
  const FT_Bitmap& bitmap = face_->face->glyph->bitmap;
  if (bitmap.pixel_mode != FT_PIXEL_MODE_BGRA || bitmap.width == 0 || bitmap.rows == 0) return std::nullopt;
  Glyph glyph{static_cast<int>(bitmap.width), static_cast<int>(bitmap.rows), {}};
  glyph.pixels.reserve(std::size_t{4} * bitmap.width * bitmap.rows);
  for (unsigned row = 0; row < bitmap.rows; ++row) {
    const unsigned char* pixel = bitmap.buffer + static_cast<std::ptrdiff_t>(row) * bitmap.pitch;
    for (unsigned column = 0; column < bitmap.width; ++column, pixel += 4) {
      glyph.pixels.insert(glyph.pixels.end(), {pixel[2], pixel[1], pixel[0], pixel[3]});
    }
  }
  return glyph;
}

}  // namespace strobe::clip
