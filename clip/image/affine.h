// Image.rotate and Image.transform(AFFINE) of Pillow with bicubic interpolation, on RGB images of the same size.
#pragma once

#include <array>

#include "clip/image/image.h"

namespace strobe::clip::internal {

/// Output pixel (x, y) shows the input at (a x + b y + c, d x + e y + f), pixels being squares with their centres at
/// .5; what lies outside is filled.
using AffineMatrix = std::array<double, 6>;

Image transform_affine(const Image& image, const AffineMatrix& matrix, const std::array<uint8_t, 3>& fill);

/// Counter-clockwise around the centre.
AffineMatrix rotation(double degrees, int width, int height);

}  // namespace strobe::clip::internal
