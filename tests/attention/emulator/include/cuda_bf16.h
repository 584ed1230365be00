// The name and the size of the type: kernels reach its numbers through Element.
#pragma once

#include <cstdint>

struct __nv_bfloat16 {
  uint16_t bits;
};
