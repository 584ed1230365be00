// Pillow's ImageOps and ImageEnhance on RGB images, in place.
#pragma once

#include "clip/image/image.h"

namespace strobe::clip::internal {

void posterize(Image& image, int bits);
void solarize(Image& image, int threshold);
void invert(Image& image);
void auto_contrast(Image& image);
void equalize(Image& image);
void adjust_color(Image& image, double factor);
void adjust_contrast(Image& image, double factor);
void adjust_sharpness(Image& image, double factor);

}  // namespace strobe::clip::internal
