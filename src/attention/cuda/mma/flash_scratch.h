// What flash_attn keeps in the workspace between the steps of its forward's outer loop.
#pragma once

#include <cstdint>

namespace strobe::cuda {

/// Of one query row: its largest score and the sum of its exponentials, over the keys so far.
struct alignas(8) RowSoftmax {
  float maximum, sum;
};

struct FlashScratch {
  RowSoftmax* rows;  // like softmax_lse
  float* out;        // like softmax_lse, a row of native head dim each: O over the keys so far, normalised
};

}  // namespace strobe::cuda
