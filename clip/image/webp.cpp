#include <webp/demux.h>

#include <cstring>
#include <memory>

#include "clip/image/decoders.h"

namespace strobe::clip::internal {

Image decode_webp(std::string_view bytes) {
  const WebPData data = {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(data.bytes, data.size, &features) != VP8_STATUS_OK) throw ImageError("WebP image: no header");
  check_size("WebP", features.width, features.height);
  // The decoder of animations gives a still image as an animation of one frame.
  const std::unique_ptr<WebPAnimDecoder, void (*)(WebPAnimDecoder*)> decoder(WebPAnimDecoderNew(&data, nullptr),
                                                                             WebPAnimDecoderDelete);
  WebPAnimInfo info;
  uint8_t* rgba = nullptr;
  int timestamp = 0;
  if (decoder == nullptr || !WebPAnimDecoderGetInfo(decoder.get(), &info) ||
      info.canvas_width != static_cast<uint32_t>(features.width) ||
      info.canvas_height != static_cast<uint32_t>(features.height) ||
      !WebPAnimDecoderGetNext(decoder.get(), &rgba, &timestamp)) {
    throw ImageError("WebP image: it is damaged or cut short");
  }
  Image image(features.has_alpha ? ImageMode::kRgba : ImageMode::kRgb, features.width, features.height);
  if (image.mode == ImageMode::kRgba) {
    std::memcpy(image.pixels.data(), rgba, image.pixels.size());
  } else {
    for (std::size_t i = 0; i < image.pixels.size() / 3; ++i) std::memcpy(&image.pixels[3 * i], rgba + 4 * i, 3);
  }
  return image;
}

}  // namespace strobe::clip::internal
