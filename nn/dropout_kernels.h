// The loops of nn/dropout.h over contiguous fp32, vectorised by the compiler for the instruction sets of x86-64 and
// chosen at run time.
#pragma once

#include <cstdint>

namespace strobe::nn {

/// Elements are drawn in blocks of this many, so that a partition at multiples of it changes nothing.
constexpr int64_t kDropoutBlock = 128;

struct DropoutDraw {
  uint64_t seed;
  uint32_t threshold;  // strobe::dropout_threshold(p)
};

/// For the elements [begin, end) of the whole, begin a multiple of kDropoutBlock; pointers are to element 0.
/// out = keep * scale * x
void dropout_range(const DropoutDraw& draw, int64_t begin, int64_t end, const float* x, float* out);
/// out = residual + keep * scale * x
void add_dropout_range(const DropoutDraw& draw, int64_t begin, int64_t end, const float* residual, const float* x,
                       float* out);
/// out = keep * scale * max(0, x)
void relu_dropout_range(const DropoutDraw& draw, int64_t begin, int64_t end, const float* x, float* out);

}  // namespace strobe::nn
