// One decoder a format; decode_image chooses. Each throws ImageError.
#pragma once

#include <string_view>

#include "clip/image/image.h"

namespace strobe::clip::internal {

Image decode_jpeg(std::string_view bytes);
Image decode_png(std::string_view bytes);
Image decode_webp(std::string_view bytes);

/// Throws ImageError where a picture of this size is not read.
void check_size(const char* format, int64_t width, int64_t height);

}  // namespace strobe::clip::internal
