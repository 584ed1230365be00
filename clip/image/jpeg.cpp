// jpeglib.h needs size_t and FILE from these two.
#include <cstddef>
#include <cstdio>
// clang-format off
#include <jpeglib.h>
// clang-format on

#include <csetjmp>
#include <string>

#include "clip/image/decoders.h"

namespace strobe::clip::internal {
namespace {

/// A crafted progressive file can ask for the same image thousands of times.
constexpr int kMaxScans = 500;

/// libjpeg reports an error by a call that must not return: we jump out to where the library was called.
struct ErrorManager {
  jpeg_error_mgr base;
  std::jmp_buf escape;
  char message[JMSG_LENGTH_MAX];
};

[[noreturn]] void escape_with(j_common_ptr jpeg, const char* message) {
  auto* errors = reinterpret_cast<ErrorManager*>(jpeg->err);
  std::snprintf(errors->message, sizeof(errors->message), "%s", message);
  std::longjmp(errors->escape, 1);
}

[[noreturn]] void on_error(j_common_ptr jpeg) {
  char message[JMSG_LENGTH_MAX];
  (*jpeg->err->format_message)(jpeg, message);
  escape_with(jpeg, message);
}

void on_message(j_common_ptr) {}  // damaged data that libjpeg can paper over: so does Pillow

void on_progress(j_common_ptr jpeg) {
  const auto* decompress = reinterpret_cast<j_decompress_ptr>(jpeg);
  if (decompress->input_scan_number > kMaxScans) escape_with(jpeg, "too many scans");
}

boolean at_end(j_decompress_ptr jpeg) { escape_with(reinterpret_cast<j_common_ptr>(jpeg), "the file is cut short"); }

void skip(j_decompress_ptr jpeg, long count) {
  if (count <= 0) return;
  if (static_cast<std::size_t>(count) > jpeg->src->bytes_in_buffer) at_end(jpeg);
  jpeg->src->next_input_byte += count;
  jpeg->src->bytes_in_buffer -= static_cast<std::size_t>(count);
}

void nothing(j_decompress_ptr) {}

/// Everything that libjpeg holds on to. Its functions are called between setjmp and longjmp, so no object with a
/// destructor may be born there: that is why the steps below work on this struct.
struct Decoder {
  jpeg_decompress_struct jpeg{};
  ErrorManager errors{};
  jpeg_source_mgr source{};
  jpeg_progress_mgr progress{};

  explicit Decoder(std::string_view bytes) {
    jpeg.err = jpeg_std_error(&errors.base);
    errors.base.error_exit = on_error;
    errors.base.output_message = on_message;
    source.next_input_byte = reinterpret_cast<const JOCTET*>(bytes.data());
    source.bytes_in_buffer = bytes.size();
    source.init_source = nothing;
    source.fill_input_buffer = at_end;
    source.skip_input_data = skip;
    source.resync_to_restart = jpeg_resync_to_restart;
    source.term_source = nothing;
    progress.progress_monitor = on_progress;
  }
  ~Decoder() { jpeg_destroy_decompress(&jpeg); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  bool read_header() {
    if (setjmp(errors.escape) != 0) return false;
    jpeg_create_decompress(&jpeg);
    jpeg.src = &source;
    jpeg.progress = &progress;
    while (jpeg_read_header(&jpeg, FALSE) == JPEG_HEADER_TABLES_ONLY) {
    }
    return true;
  }

  bool start() {
    if (setjmp(errors.escape) != 0) return false;
    return jpeg_start_decompress(&jpeg) != FALSE;
  }

  bool read_rows(uint8_t* pixels, std::size_t row_bytes) {
    if (setjmp(errors.escape) != 0) return false;
    while (jpeg.output_scanline < jpeg.output_height) {
      JSAMPROW row = pixels + row_bytes * jpeg.output_scanline;
      jpeg_read_scanlines(&jpeg, &row, 1);
    }
    return true;  // what follows the last row is not looked at
  }
};

[[noreturn]] void fail(const Decoder& decoder) {
  throw ImageError(std::string("JPEG image: ") + decoder.errors.message);
}

}  // namespace

Image decode_jpeg(std::string_view bytes) {
  Decoder decoder(bytes);
  if (!decoder.read_header()) fail(decoder);
  jpeg_decompress_struct& jpeg = decoder.jpeg;
  check_size("JPEG", jpeg.image_width, jpeg.image_height);
  ImageMode mode = ImageMode::kRgb;
  switch (jpeg.num_components) {
    case 1:
      mode = ImageMode::kGray;
      jpeg.out_color_space = JCS_GRAYSCALE;
      break;
    case 3:
      jpeg.out_color_space = JCS_RGB;
      break;
    case 4:
      mode = ImageMode::kCmyk;
      jpeg.out_color_space = JCS_CMYK;
      break;
    default:
      throw ImageError("JPEG image: expected 1, 3 or 4 components, found " + std::to_string(jpeg.num_components));
  }
  if (!decoder.start()) fail(decoder);
  Image image(mode, static_cast<int>(jpeg.output_width), static_cast<int>(jpeg.output_height));
  if (!decoder.read_rows(image.pixels.data(), image.row_bytes())) fail(decoder);
  if (mode == ImageMode::kCmyk) {  // Adobe's programs write paper as 255; Pillow takes all files to be theirs
    for (uint8_t& value : image.pixels) value = static_cast<uint8_t>(~value);
  }
  return image;
}

}  // namespace strobe::clip::internal
