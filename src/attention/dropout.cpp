// dropout_mask: the checks, the CPU's implementation and the way to the device's.
#include "strobe/dropout.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
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

/// What the counters of a call have in common.
struct Draw {
  std::array<uint32_t, 2> key;
  uint32_t offset;
  int32_t threshold;
  uint32_t scale_bits;
};

Draw draw_of(const DropoutMaskParams& p) {
  const uint64_t seed = p.rng_state[0], offset = p.rng_state[1];
  const uint32_t threshold = dropout_threshold(p.dropout_p);
  return {{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32) ^ static_cast<uint32_t>(offset >> 32)},
          static_cast<uint32_t>(offset),
          static_cast<int32_t>(threshold),
          std::bit_cast<uint32_t>(dropout_scale(threshold))};
}

/// The 8 words at a shift as factors. Arithmetic instead of a choice, so that the compiler makes vectors of it.
template <int kShift>
void write_factors(const uint32_t* random, const Draw& draw, uint32_t* to) {
  for (int residue = 0; residue < kStep; ++residue) {
    const auto word = static_cast<int32_t>((random[residue] >> kShift) & 0xFFFFu);
    to[residue] = static_cast<uint32_t>((word - draw.threshold) >> 31) & draw.scale_bits;  // all ones where it is below
  }
}

/// The factors (their bits) of rows i and i + 8 of a block of 16 rows and 32 columns, from the counters of its 8 column
/// residues.
using RowPair = std::array<std::array<uint32_t, kColumns>, 2>;

RowPair row_pair(const Draw& draw, uint32_t row_counter, uint32_t column_counter, uint32_t head_index) {
  uint32_t random[4][kStep];
  for (uint32_t residue = 0; residue < kStep; ++residue) {
    const auto outputs = philox4x32_7({row_counter, column_counter + residue, head_index, draw.offset}, draw.key);
    for (int output = 0; output < 4; ++output) random[output][residue] = outputs[output];
  }
  RowPair result;
  for (int output = 0; output < 4; ++output) {
    uint32_t* to = result[output / 2].data() + 2 * kStep * (output % 2);
    write_factors<0>(random[output], draw, to);
    write_factors<16>(random[output], draw, to + kStep);
  }
  return result;
}

void write_head(const DropoutMaskParams& p, const Draw& draw, uint32_t head_index, float* mask) {
  for (int64_t i0 = 0; i0 < p.seqlen_q; i0 += kRows) {
    for (int64_t i = i0; i < std::min(i0 + kStep, p.seqlen_q); ++i) {
      for (int64_t j = 0; j < p.seqlen_k; j += kColumns) {
        const RowPair rows =
            row_pair(draw, static_cast<uint32_t>(i0 / 2 + i % kStep), static_cast<uint32_t>(j / 4), head_index);
        const auto bytes = static_cast<std::size_t>(4 * std::min(kColumns, p.seqlen_k - j));
        std::memcpy(mask + i * p.seqlen_k + j, rows[0].data(), bytes);
        if (i + kStep < p.seqlen_q) std::memcpy(mask + (i + kStep) * p.seqlen_k + j, rows[1].data(), bytes);
      }
    }
  }
}

void dropout_mask_cpu(const DropoutMaskParams& p) {
  const Draw draw = draw_of(p);
  for (int64_t head = 0; head < p.num_heads; ++head) {
    write_head(p, draw, static_cast<uint32_t>(p.head_begin + head), p.mask + head * p.seqlen_q * p.seqlen_k);
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
