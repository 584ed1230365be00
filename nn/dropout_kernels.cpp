#include "nn/dropout_kernels.h"

#include <algorithm>
#include <cstring>

#include "strobe/dropout.h"

// One body for every instruction set; the dynamic linker takes the best. Sanitizers instrument too much to resolve it.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define STROBE_EVERY_ISA __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define STROBE_EVERY_ISA
#endif

namespace strobe::nn {
namespace {

constexpr int kLanes = 16;  // Philox counters a block, 8 words of 16 bits each
static_assert(kLanes * 8 == kDropoutBlock);

/// The factors of a block's elements: 0 or the scale.
inline __attribute__((always_inline)) void draw_factors(const DropoutDraw& draw, int64_t first, float* factors) {
  const auto block = static_cast<uint64_t>(first / kDropoutBlock);
  uint32_t random[4][kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto result =
        philox4x32_7({static_cast<uint32_t>(lane), static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), 0},
                     {static_cast<uint32_t>(draw.seed), static_cast<uint32_t>(draw.seed >> 32)});
    for (int word = 0; word < 4; ++word) random[word][lane] = result[word];
  }
  uint16_t words[kDropoutBlock];
  std::memcpy(words, random, sizeof(random));
  const float scale = dropout_scale(draw.threshold);
  for (int i = 0; i < kDropoutBlock; ++i) factors[i] = words[i] < draw.threshold ? scale : 0.0f;
}

}  // namespace

// A dropped NaN or infinity must not come back: select, never multiply by 0.

STROBE_EVERY_ISA void dropout_range(const DropoutDraw& draw, int64_t begin, int64_t end, const float* x, float* out) {
  float keep[kDropoutBlock];
  for (int64_t first = begin; first < end; first += kDropoutBlock) {
    draw_factors(draw, first, keep);
    const int64_t count = std::min(kDropoutBlock, end - first);
    for (int64_t i = 0; i < count; ++i) out[first + i] = keep[i] != 0.0f ? x[first + i] * keep[i] : 0.0f;
  }
}

STROBE_EVERY_ISA void add_dropout_range(const DropoutDraw& draw, int64_t begin, int64_t end, const float* residual,
                                        const float* x, float* out) {
  float keep[kDropoutBlock];
  for (int64_t first = begin; first < end; first += kDropoutBlock) {
    draw_factors(draw, first, keep);
    const int64_t count = std::min(kDropoutBlock, end - first);
    for (int64_t i = 0; i < count; ++i) {
      out[first + i] = residual[first + i] + (keep[i] != 0.0f ? x[first + i] * keep[i] : 0.0f);
    }
  }
}

STROBE_EVERY_ISA void relu_dropout_range(const DropoutDraw& draw, int64_t begin, int64_t end, const float* x,
                                         float* out) {
  float keep[kDropoutBlock];
  for (int64_t first = begin; first < end; first += kDropoutBlock) {
    draw_factors(draw, first, keep);
    const int64_t count = std::min(kDropoutBlock, end - first);
    for (int64_t i = 0; i < count; ++i) {
      // NaN is not <= 0 and passes.
      out[first + i] = keep[i] == 0.0f || x[first + i] <= 0.0f ? 0.0f : x[first + i] * keep[i];
    }
  }
}

}  // namespace strobe::nn
