// The name and the size of the type: kernels reach its numbers through Element.
#pragma once

#include <cstdint>

struct __half {
  uint16_t bits;
};
