#include <png.h>

#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <string>

#include "clip/image/decoders.h"

namespace strobe::clip::internal {
namespace {

/// libpng reports an error by a call that must not return: we jump out to where the library was called, so no object
/// with a destructor may be born between setjmp and longjmp.
class Decoder {
 public:
  explicit Decoder(std::string_view bytes) : rest_(bytes) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, on_warning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
    if (info_ == nullptr) {
      png_destroy_read_struct(&png_, nullptr, nullptr);
      throw ImageError("PNG image: out of memory");
    }
  }
  ~Decoder() { png_destroy_read_struct(&png_, &info_, nullptr); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  bool read_header() {
    if (setjmp(escape_) != 0) return false;
    png_set_read_fn(png_, this, on_read);
    png_set_benign_errors(png_, 1);
    png_set_crc_action(png_, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);
    png_read_info(png_, info_);
    return true;
  }

  /// Rows of 8 or, in gray alone, 16 bits.
  bool start(bool keep_16_bits) {
    if (setjmp(escape_) != 0) return false;
    const int bits = png_get_bit_depth(png_, info_);
    const int color = png_get_color_type(png_, info_);
    if (color == PNG_COLOR_TYPE_GRAY && bits < 8) png_set_expand_gray_1_2_4_to_8(png_);
    if (color == PNG_COLOR_TYPE_PALETTE) png_set_packing(png_);
    if (bits == 16 && keep_16_bits) png_set_swap(png_);
    if (bits == 16 && !keep_16_bits) png_set_strip_16(png_);
    passes_ = png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    return true;
  }

  bool read_rows(uint8_t* pixels, std::size_t row_bytes, int height) {
    if (setjmp(escape_) != 0) return has_all_rows(height);
    for (int pass = 0; pass < passes_; ++pass) {
      for (int y = 0; y < height; ++y) png_read_row(png_, pixels + row_bytes * static_cast<std::size_t>(y), nullptr);
    }
    return true;
  }

  void read_palette(std::vector<uint8_t>& palette) {
    png_color* colors = nullptr;
    int count = 0;
    png_get_PLTE(png_, info_, &colors, &count);
    for (int i = 0; i < count; ++i) palette.insert(palette.end(), {colors[i].red, colors[i].green, colors[i].blue});
    palette.resize(3 * 256);  // what the file does not name is black
  }

  int64_t width() const { return png_get_image_width(png_, info_); }
  int64_t height() const { return png_get_image_height(png_, info_); }
  int bits() const { return png_get_bit_depth(png_, info_); }
  int color() const { return png_get_color_type(png_, info_); }
  std::size_t row_bytes() const { return png_get_rowbytes(png_, info_); }
  [[noreturn]] void fail() const { throw ImageError(std::string("PNG image: ") + message_); }

 private:
  /// Whether only what follows the last row is damaged, which does not matter to Pillow either.
  bool has_all_rows(int height) const {
    return passes_ > 1 ? png_get_current_pass_number(png_) >= passes_
                       : png_get_current_row_number(png_) >= static_cast<png_uint_32>(height);
  }

  static void on_read(png_structp png, png_bytep out, std::size_t count) {
    auto* self = static_cast<Decoder*>(png_get_io_ptr(png));
    if (count > self->rest_.size()) png_error(png, "the file is cut short");
    std::memcpy(out, self->rest_.data(), count);
    self->rest_.remove_prefix(count);
  }

  [[noreturn]] static void on_error(png_structp png, png_const_charp message) {
    auto* self = static_cast<Decoder*>(png_get_error_ptr(png));
    std::snprintf(self->message_, sizeof(self->message_), "%s", message);
    std::longjmp(self->escape_, 1);
  }

  static void on_warning(png_structp, png_const_charp) {}

  std::string_view rest_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  int passes_ = 1;
  std::jmp_buf escape_;
  char message_[128] = {};
};

ImageMode mode_of(int color, int bits) {
  switch (color) {
    case PNG_COLOR_TYPE_GRAY:
      return bits == 1 ? ImageMode::kBilevel : bits == 16 ? ImageMode::kGray16 : ImageMode::kGray;
    case PNG_COLOR_TYPE_PALETTE:
      return ImageMode::kPalette;
    case PNG_COLOR_TYPE_RGB:
      return ImageMode::kRgb;
    case PNG_COLOR_TYPE_GRAY_ALPHA:
      return ImageMode::kGrayAlpha;
    default:
      return ImageMode::kRgba;
  }
}

}  // namespace

Image decode_png(std::string_view bytes) {
  Decoder decoder(bytes);
  if (!decoder.read_header()) decoder.fail();
  check_size("PNG", decoder.width(), decoder.height());
  const ImageMode mode = mode_of(decoder.color(), decoder.bits());
  const auto width = static_cast<int>(decoder.width()), height = static_cast<int>(decoder.height());
  if (!decoder.start(mode == ImageMode::kGray16)) decoder.fail();
  Image image(mode, width, height);
  if (decoder.row_bytes() != image.row_bytes()) throw ImageError("PNG image: its rows have an unexpected length");
  if (!decoder.read_rows(image.pixels.data(), image.row_bytes(), height)) decoder.fail();
  if (mode == ImageMode::kPalette) decoder.read_palette(image.palette);
  return image;
}

}  // namespace strobe::clip::internal
