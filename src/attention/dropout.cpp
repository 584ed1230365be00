// dropout_mask: the checks, the CPU's implementation and the way to the device's.
#include "strobe/dropout.h"

#include <algorithm>
#include <array>
#include <limits>

#ifdef STROBE_CUDA
#include "src/attention/cuda/dropout_mask.h"
#endif
#include "src/attention/validate.h"

namespace strobe {
namespace {

constexpr int64_t kRows = 16, kColumns = 32;  // the block whose elements share 8 x 8 counters
constexpr int64_t kStep = 8;                  // one counter serves rows i, i + 8 and columns j, j + 8, j + 16, j + 24

void check(const DropoutMaskParams& p) {
  const auto fail = [](const char* argument, const std::string& expected, const std::string& found) {
    throw Error(reason("dropout_mask", argument, expected, found));
  };
  const auto at_least_0 = [&](const char* argument, int64_t value) {
    if (value < 0) fail(argument, "at least 0", std::to_string(value));
  };
  at_least_0("head_begin", p.head_begin);
  at_least_0("num_heads", p.num_heads);
  at_least_0("seqlen_q", p.seqlen_q);
  at_least_0("seqlen_k", p.seqlen_k);
  if (!(p.dropout_p >= 0 && p.dropout_p < 1) || dropout_threshold(p.dropout_p) < 1) {
    fail("dropout_p", "0 <= dropout_p < 1 with round((1 - dropout_p) * 65536) at least 1", std::to_string(p.dropout_p));
  }
  int64_t rows = 0, elements = 0;
  if (__builtin_mul_overflow(p.num_heads, p.seqlen_q, &rows) || __builtin_mul_overflow(rows, p.seqlen_k, &elements) ||
      elements > std::numeric_limits<int64_t>::max() / 4) {
    fail("mask", "a size that fits in 64 bits", "a larger one");
  }
  if (p.rng_state == nullptr) fail("rng_state", "a pointer", "null");
  if (p.mask == nullptr && elements > 0) fail("mask", "a pointer", "null");
}

/// The eight 16-bit words of one counter as factors, word by word.
std::array<float, 8> factors(const std::array<uint32_t, 4>& random, uint32_t threshold, float scale) {
  std::array<float, 8> result;
  for (int word = 0; word < 8; ++word) {
    result[word] = ((random[word / 2] >> (16 * (word % 2))) & 0xFFFFu) < threshold ? scale : 0.0f;
  }
  return result;
}

/// The block of 16 rows from i0 and 32 columns from j0, clipped to the matrix.
void write_block(const DropoutMaskParams& p, uint64_t head_index, int64_t i0, int64_t j0, float* head_mask) {
  const auto lo = [](uint64_t x) { return static_cast<uint32_t>(x); };
  const auto hi = [](uint64_t x) { return static_cast<uint32_t>(x >> 32); };
  const uint64_t seed = p.rng_state[0], offset = p.rng_state[1];
  const uint32_t threshold = dropout_threshold(p.dropout_p);
  const float scale = dropout_scale(threshold);
  for (int64_t i = 0; i < std::min(kStep, p.seqlen_q - i0); ++i) {
    for (int64_t j = 0; j < std::min(kStep, p.seqlen_k - j0); ++j) {
      const auto random =
          philox4x32_7({lo(kStep * (i0 / kRows) + i), lo(kStep * (j0 / kColumns) + j), lo(head_index), lo(offset)},
                       {lo(seed), hi(seed) ^ hi(offset)});
      const auto factor = factors(random, threshold, scale);
      for (int64_t word = 0; word < 8; ++word) {
        const int64_t row = i0 + i + kStep * (word / 4), column = j0 + j + kStep * (word % 4);
        if (row < p.seqlen_q && column < p.seqlen_k) head_mask[row * p.seqlen_k + column] = factor[word];
      }
    }
  }
}

void dropout_mask_cpu(const DropoutMaskParams& p) {
  for (int64_t head = 0; head < p.num_heads; ++head) {
    float* head_mask = p.mask + head * p.seqlen_q * p.seqlen_k;
    for (int64_t i0 = 0; i0 < p.seqlen_q; i0 += kRows) {
      for (int64_t j0 = 0; j0 < p.seqlen_k; j0 += kColumns) {
        write_block(p, static_cast<uint64_t>(p.head_begin + head), i0, j0, head_mask);
      }
    }
  }
}

}  // namespace

void dropout_mask(const DropoutMaskParams& params) {
  check(params);
  if (params.device == Device::kCPU) {
    dropout_mask_cpu(params);
  } else {
#ifdef STROBE_CUDA
    cuda::dropout_mask(params);
#else
    throw Error("dropout_mask: this build has no CUDA kernels");
#endif
  }
}

}  // namespace strobe
