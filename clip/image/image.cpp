#include "clip/image/image.h"

#include <fmt/format.h>

#include "clip/image/decoders.h"

namespace strobe::clip {
namespace {

struct Signature {
  std::size_t offset;
  std::string_view bytes;
  const char* format;
};

constexpr std::string_view operator""_bytes(const char* text, std::size_t size) { return {text, size}; }

/// Formats that people have, so that they can be refused by name.
constexpr Signature kUnsupported[] = {
    {0, "GIF87a", "GIF"},
    {0, "GIF89a", "GIF"},
    {0, "BM", "BMP"},
    {0, "II*\0"_bytes, "TIFF"},
    {0, "MM\0*"_bytes, "TIFF"},
    {4, "ftypavif", "AVIF"},
    {4, "ftypheic", "HEIC"},
    {4, "ftypmif1", "HEIF"},
    {0, "\0\0\0\x0cjP  "_bytes, "JPEG 2000"},
    {0, "\xff\x4f\xff\x51", "JPEG 2000"},
    {0, "\xff\x0a", "JPEG XL"},
    {0, "\0\0\0\x0cJXL "_bytes, "JPEG XL"},
    {0, "\0\0\1\0"_bytes, "ICO"},
    {0, "8BPS", "PSD"},
    {0, "<svg", "SVG"},
    {0, "<?xml", "XML (SVG?)"},
    {0, "%PDF", "PDF"},
};

bool has(std::string_view bytes, std::size_t offset, std::string_view signature) {
  return bytes.size() >= offset && bytes.substr(offset).starts_with(signature);
}

[[noreturn]] void refuse(std::string_view bytes) {
  constexpr char kRead[] = "JPEG, PNG and WebP are read";
  if (bytes.empty()) throw ImageError("image: no bytes");
  for (const Signature& known : kUnsupported) {
    if (has(bytes, known.offset, known.bytes)) {
      throw ImageError(fmt::format("image: {} is not supported; {}", known.format, kRead));
    }
  }
  std::string start;
  for (const char byte : bytes.substr(0, 8)) start += fmt::format(" {:02x}", static_cast<unsigned char>(byte));
  throw ImageError(fmt::format("image: unknown format (it starts with{}); {}", start, kRead));
}

}  // namespace

int bytes_per_pixel(ImageMode mode) {
  switch (mode) {
    case ImageMode::kBilevel:
    case ImageMode::kGray:
    case ImageMode::kPalette:
      return 1;
    case ImageMode::kGrayAlpha:
    case ImageMode::kGray16:
      return 2;
    case ImageMode::kRgb:
      return 3;
    case ImageMode::kRgba:
    case ImageMode::kCmyk:
      return 4;
  }
  return 0;
}

Image::Image(ImageMode mode, int width, int height)
    : mode(mode),
      width(width),
      height(height),
      pixels(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) *
             static_cast<std::size_t>(bytes_per_pixel(mode))) {}

void internal::check_size(const char* format, int64_t width, int64_t height) {
  if (width < 1 || height < 1 || width > kMaxImagePixels / height) {
    throw ImageError(
        fmt::format("{} image: expected 1 to {} pixels, found {} x {}", format, kMaxImagePixels, width, height));
  }
}

Image decode_image(std::string_view bytes) {
  if (has(bytes, 0, "\xff\xd8\xff")) return internal::decode_jpeg(bytes);
  if (has(bytes, 0, "\x89PNG\r\n\x1a\n")) return internal::decode_png(bytes);
  if (has(bytes, 0, "RIFF") && has(bytes, 8, "WEBP")) return internal::decode_webp(bytes);
  refuse(bytes);
}

}  // namespace strobe::clip
