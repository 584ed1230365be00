// Forward and backward of every kernel against the oracle over the cases of the interface.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "tests/attention/attention_case.h"
#include "tests/attention/problem.h"

namespace strobe::testing {
namespace {

/// Some of everything, small enough to look at when it fails.
TEST(Lattice, Basic) {
  for (const DType dtype : kDTypes) {
    check_case(
        {.batch = 2, .seqlen_q = 5, .seqlen_k = 7, .num_heads_q = 2, .num_heads_k = 2, .head_dim = 16, .dtype = dtype});
    check_case({.batch = 2, .seqlen_q = 64, .seqlen_k = 64, .num_heads_q = 2, .num_heads_k = 2, .dtype = dtype});
    check_case({.seqlen_q = 100, .seqlen_k = 130, .num_heads_q = 4, .num_heads_k = 2, .dtype = dtype, .causal = true});
    check_case({.seqlen_q = 130,
                .seqlen_k = 100,
                .num_heads_q = 2,
                .num_heads_k = 1,
                .dtype = dtype,
                .causal = true,
                .layout = Layout::kPacked,
                .dropout_p = 0.1,
                .lse_gradient = true});
  }
}

TEST(Lattice, HeadDims) {
  for (int64_t head_dim = 8; head_dim <= 136; head_dim += 8) {
    AttentionCase c{.seqlen_q = 67, .seqlen_k = 93, .num_heads_q = 2, .num_heads_k = 1};
    c.head_dim = head_dim == 136 ? 256 : head_dim;
    if (c.head_dim > kWidestHead) continue;
    for (const DType dtype : kDTypes) {
      c.dtype = dtype;
      c.causal = !c.causal;
      check_case(c);
    }
  }
}

/// The native head dims with tiles of their own, around the sizes of those tiles.
TEST(Lattice, WideHeads) {
  for (const int64_t head_dim : {80, 96, 128, 256}) {
    if (head_dim > kWidestHead) continue;
    for (const int64_t n : {1, 16, 31, 33, 64, 65, 100, 129, 160}) {
      if (kEmulated && n % 5 != 0) continue;
      AttentionCase c{.seqlen_q = n, .seqlen_k = n, .num_heads_q = 2, .num_heads_k = 1, .head_dim = head_dim};
      c.dtype = kDTypes[n % 2];
      check_case(c);
      c.dtype = kDTypes[(n + 1) % 2];
      c.causal = true;
      check_case(c);
      c.seqlen_k = 161 - n;
      c.window_left = 40;
      c.lse_gradient = true;
      check_case(c);
      c.dropout_p = 0.3;
      check_case(c);
    }
  }
}

TEST(Lattice, Lengths) {
  for (int64_t n = 1; n <= 640; n += kEmulated ? 1 + n / 2 : 1) {
    for (const DType dtype : kDTypes) {
      AttentionCase c{.seqlen_q = n, .seqlen_k = n, .head_dim = 16};
      c.dtype = dtype;
      c.causal = (n + (dtype == DType::kBFloat16)) % 2 == 0;
      check_case(c);
    }
  }
}

TEST(Lattice, LongerAndUnequalLengths) {
  const std::pair<int64_t, int64_t> lengths[] = {{113, 203}, {256, 512},   {512, 256},   {1, 1023},
                                                 {799, 3},   {1024, 1023}, {1023, 1024}, {1025, 1025}};
  bool causal = false;
  for (const auto& [nq, nk] : lengths) {
    if (kEmulated && nq * nk > 113 * 203) continue;
    for (const DType dtype : kDTypes) {
      causal = !causal;
      check_case({.seqlen_q = nq, .seqlen_k = nk, .head_dim = 64, .dtype = dtype, .causal = causal});
    }
    causal = !causal;
  }
}

TEST(Lattice, UnequalLengths) {
  const std::vector<int64_t> lengths = kEmulated ? std::vector<int64_t>{0, 1, 65, 129}
                                                 : std::vector<int64_t>{0, 1, 2, 15, 17, 63, 64, 65, 127, 129, 200};
  for (const int64_t nq : lengths) {
    for (const int64_t nk : lengths) {
      AttentionCase c{.seqlen_q = nq, .seqlen_k = nk, .num_heads_q = 2, .num_heads_k = 2, .head_dim = 32};
      c.dtype = kDTypes[(nq + nk) % 2];
      check_case(c);
      c.causal = true;
      c.dtype = kDTypes[(nq + nk + 1) % 2];
      check_case(c);
    }
  }
}

TEST(Lattice, GroupedHeads) {
  for (const DType dtype : kDTypes) {
    for (const int64_t heads_k : {1, 2, 3, 6}) {
      check_case({.batch = 2,
                  .seqlen_q = 70,
                  .seqlen_k = 50,
                  .num_heads_q = 6,
                  .num_heads_k = heads_k,
                  .head_dim = 24,
                  .dtype = dtype,
                  .lse_gradient = true});
    }
  }
}

TEST(Lattice, Windows) {
  const std::vector<int64_t> widths =
      kEmulated ? std::vector<int64_t>{-1, 0, 64} : std::vector<int64_t>{-1, 0, 1, 10, 64, 1000};
  for (const int64_t left : widths) {
    for (const int64_t right : widths) {
      AttentionCase c{.seqlen_q = 150, .seqlen_k = 170, .num_heads_q = 2, .num_heads_k = 1, .head_dim = 16};
      c.window_left = left;
      c.window_right = right;
      c.causal = (left + right) % 4 == 0;
      c.dtype = kDTypes[(left + 2 * right + 3) % 2];
      check_case(c);
      std::swap(c.seqlen_q, c.seqlen_k);
      check_case(c);
    }
  }
}

TEST(Lattice, KeyAndQueryLengths) {
  for (const DType dtype : kDTypes) {
    for (const bool causal : {false, true}) {
      AttentionCase c{.batch = 6, .seqlen_q = 90, .seqlen_k = 75, .num_heads_q = 2, .num_heads_k = 1, .head_dim = 32};
      c.dtype = dtype;
      c.causal = causal;
      c.key_lengths = {75, 0, 1, 64, -3, 1000};
      check_case(c);
      c.query_lengths = {0, 90, 33, 1, 64, 70};
      c.lse_gradient = true;
      check_case(c);
      c.key_lengths = {};
      c.window_left = 20;
      check_case(c);
      c.num_heads_k = 2;  // kernels for short sequences, some of whose warps have no keys then
      c.key_lengths = {75, 0, 1, 33, 48, 16};
      check_case(c);
    }
  }
}

TEST(Lattice, Varlen) {
  for (const DType dtype : kDTypes) {
    for (const Layout layout : {Layout::kBNHD, Layout::kPacked, Layout::kBHND}) {
      AttentionCase c{.batch = 5, .seqlen_q = 80, .seqlen_k = 80, .num_heads_q = 2, .num_heads_k = 1, .head_dim = 32};
      c.dtype = dtype;
      c.layout = layout;
      c.lengths_q = {17, 0, 64, 80, 1};
      c.lengths_k = {17, 5, 0, 79, 40};
      c.spare_tokens = 3;
      check_case(c);
      c.causal = true;
      c.dropout_p = 0.2;
      check_case(c);
    }
  }
}

TEST(Lattice, Layouts) {
  for (const DType dtype : kDTypes) {
    for (const Layout layout : {Layout::kBHND, Layout::kPacked, Layout::kPadded}) {
      for (const int64_t nk : {70, 45}) {
        check_case({.batch = 2,
                    .seqlen_q = 70,
                    .seqlen_k = nk,
                    .num_heads_q = 4,
                    .num_heads_k = 2,
                    .head_dim = 40,
                    .dtype = dtype,
                    .causal = nk == 70,
                    .layout = layout,
                    .lse_gradient = true});
      }
    }
  }
}

/// Everything with everything, from a fixed seed.
AttentionCase random_case(std::mt19937& random) {
  const auto draw = [&](int64_t from, int64_t to) { return std::uniform_int_distribution<int64_t>(from, to)(random); };
  const auto chance = [&](double p) { return std::bernoulli_distribution(p)(random); };
  const auto lengths = [&](int64_t count, int64_t longest) {
    std::vector<int32_t> result(count);
    for (int32_t& length : result) length = static_cast<int32_t>(chance(0.2) ? 0 : draw(0, longest));
    return result;
  };
  AttentionCase c;
  c.batch = draw(1, 4);
  c.seqlen_q = draw(1, 200);
  c.seqlen_k = chance(0.5) ? c.seqlen_q : draw(1, 200);
  c.num_heads_k = draw(1, 3);
  c.num_heads_q = c.num_heads_k * draw(1, 3);
  c.head_dim = 8 * draw(1, std::min<int64_t>(16, kWidestHead / 8));
  if (kWidestHead == 256 && chance(0.1)) c.head_dim = 256;
  c.dtype = kDTypes[draw(0, 1)];
  c.causal = chance(0.4);
  if (chance(0.3)) c.window_left = draw(0, 150);
  if (chance(0.3)) c.window_right = draw(0, 150);
  if (chance(0.3)) {
    c.lengths_q = lengths(c.batch, c.seqlen_q);
    c.lengths_k = chance(0.3) && c.seqlen_q == c.seqlen_k ? c.lengths_q : lengths(c.batch, c.seqlen_k);
    c.spare_tokens = draw(0, 20);
  } else {
    if (chance(0.4)) c.key_lengths = lengths(c.batch, c.seqlen_k);
    if (chance(0.4)) c.query_lengths = lengths(c.batch, c.seqlen_q);
  }
  constexpr Layout kLayouts[] = {Layout::kBNHD, Layout::kBHND, Layout::kPacked, Layout::kPadded};
  c.layout = kLayouts[draw(0, 3)];
  if (chance(0.3)) c.dropout_p = 0.05 * static_cast<double>(draw(1, 15));
  c.seed = random();
  c.offset = random();
  c.lse_gradient = chance(0.3);
  // Large logits leave few terms in a row: only with many rows is the plain formula's largest error more than luck.
  const bool all_rows = c.query_lengths.empty() && c.key_lengths.empty() && !c.is_varlen();
  c.amplitude = all_rows && chance(0.3) ? 10.0f : 1.0f;
  if (chance(0.3)) c.softmax_scale = 0.3f;
  c.num_threads = chance(0.2) ? 3 : 1;
  c.data_seed = random();
  return c;
}

TEST(Lattice, RandomCombinations) {
  std::mt19937 random(20231117);
  for (int i = 0; i < (kEmulated ? 10 : 150); ++i) check_case(random_case(random));
}

}  // namespace
}  // namespace strobe::testing
