// The dropout function, the mask that materialises it, and the kernels' use of it.
#include "strobe/dropout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/attention/problem.h"

namespace strobe::testing {
namespace {

/// The known answers that Salmon et al. publish with their code (Random123, kat_vectors, philox4x32 with 7 rounds).
TEST(Dropout, PhiloxKnownAnswers) {
  constexpr uint32_t kOnes = 0xFFFFFFFF;
  EXPECT_EQ(philox4x32_7({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x5f6fb709, 0x0d893f64, 0x4f121f81, 0x4f730a48}));
  EXPECT_EQ(philox4x32_7({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (std::array<uint32_t, 4>{0x5207ddc2, 0x45165e59, 0x4d8ee751, 0x8c52f662}));
  EXPECT_EQ(philox4x32_7({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (std::array<uint32_t, 4>{0x4dfccaba, 0x190a87f0, 0xc47362ba, 0xb6b5242a}));
}

TEST(Dropout, TheExpectationIsExact) {
  for (const double p : {0.0, 0.1, 0.5, 0.9, 0.99999}) {
    const uint32_t threshold = dropout_threshold(p);
    EXPECT_NEAR(threshold / 65536.0, 1 - p, 0.5 / 65536);
    EXPECT_FLOAT_EQ(dropout_scale(threshold) * static_cast<float>(threshold) / 65536.0f, 1.0f);
  }
  EXPECT_EQ(dropout_threshold(0.0), 65536u);
}

std::vector<float> mask_of(int64_t head_begin, int64_t num_heads, int64_t seqlen_q, int64_t seqlen_k, double dropout_p,
                           uint64_t seed, uint64_t offset) {
  const uint64_t rng_state[] = {seed, offset};
  std::vector<float> mask(num_heads * seqlen_q * seqlen_k, NAN);
  DropoutMaskParams p;
  p.head_begin = head_begin;
  p.num_heads = num_heads;
  p.seqlen_q = seqlen_q;
  p.seqlen_k = seqlen_k;
  p.dropout_p = dropout_p;
  p.rng_state = rng_state;
  p.mask = mask.data();
  dropout_mask(p);
  return mask;
}

TEST(Dropout, MaskIsTheFunction) {
  const uint64_t seed = 0xFEDCBA9876543210, offset = 0x0000000300000002;
  const uint32_t threshold = dropout_threshold(0.3);
  for (const auto& [nq, nk] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {16, 32}, {37, 71}, {9, 200}, {130, 5}}) {
    const auto mask = mask_of(3, 2, nq, nk, 0.3, seed, offset);
    for (int64_t e = 0; e < static_cast<int64_t>(mask.size()); ++e) {
      const int64_t head = 3 + e / (nq * nk), i = e / nk % nq, j = e % nk;
      const bool kept = dropout_keeps(seed, offset, head, i, j, threshold);
      ASSERT_EQ(mask[e], kept ? dropout_scale(threshold) : 0.0f) << nq << 'x' << nk << ", element " << e;
    }
  }
}

/// The share of elements of a that are dropped in both.
double both_dropped(const std::vector<float>& a, const std::vector<float>& b) {
  int64_t count = 0;
  for (std::size_t e = 0; e < a.size(); ++e) count += a[e] == 0 && b[e] == 0;
  return static_cast<double>(count) / static_cast<double>(a.size());
}

/// Dropped shares, alone and jointly with another head, seed, offset or a neighbouring row or column, within 5 standard
/// deviations of independent draws.
TEST(Dropout, MaskStatistics) {
  constexpr int64_t kN = 512;
  for (const double p : {0.1, 0.5, 0.75}) {
    const auto mask = mask_of(0, 1, kN, kN, p, 42, 7);
    const auto deviation = [&](double share) { return 5 * std::sqrt(share * (1 - share) / (kN * kN)); };
    EXPECT_NEAR(both_dropped(mask, mask), p, deviation(p) + 0.5 / 65536);
    const auto independent = [&](const std::vector<float>& other, const char* what) {
      EXPECT_NEAR(both_dropped(mask, other), p * p, deviation(p * p) + 1.0 / 65536) << what << ", p = " << p;
    };
    independent(mask_of(1, 1, kN, kN, p, 42, 7), "head");
    independent(mask_of(0, 1, kN, kN, p, 43, 7), "seed");
    independent(mask_of(0, 1, kN, kN, p, 42 + (uint64_t{1} << 40), 7), "high half of the seed");
    independent(mask_of(0, 1, kN, kN, p, 42, 8), "offset");
    independent(mask_of(0, 1, kN, kN, p, 42, 7 + (uint64_t{1} << 40)), "high half of the offset");
    for (const int64_t shift : {1, 8, 16, 32}) {
      std::vector<float> columns(mask), rows(mask);
      std::rotate(columns.begin(), columns.begin() + shift, columns.end());
      std::rotate(rows.begin(), rows.begin() + shift * kN, rows.end());
      independent(columns, "column");
      independent(rows, "row");
    }
  }
}

TEST(Dropout, MaskRefusals) {
  const uint64_t rng_state[] = {1, 2};
  float mask[4];
  DropoutMaskParams p;
  p.num_heads = 1;
  p.seqlen_q = p.seqlen_k = 2;
  p.dropout_p = 0.5;
  p.rng_state = rng_state;
  p.mask = mask;
  EXPECT_NO_THROW(dropout_mask(p));
  const auto refused = [&](auto change) {
    DropoutMaskParams wrong = p;
    change(wrong);
    EXPECT_THROW(dropout_mask(wrong), Error);
  };
  refused([](auto& w) { w.num_heads = -1; });
  refused([](auto& w) { w.head_begin = -1; });
  refused([](auto& w) { w.seqlen_q = -1; });
  refused([](auto& w) { w.seqlen_k = -1; });
  refused([](auto& w) { w.seqlen_q = w.seqlen_k = int64_t{1} << 33; });
  refused([](auto& w) { w.dropout_p = 1; });
  refused([](auto& w) { w.dropout_p = -0.5; });
  refused([](auto& w) { w.rng_state = nullptr; });
  refused([](auto& w) { w.mask = nullptr; });
}

/// With V = I the output is the dropped P, with dO = I the gradient of V is its transpose: both show the mask.
TEST(Dropout, ForwardAndBackwardUseTheMask) {
  constexpr int64_t kN = std::min<int64_t>(128, kWidestHead);
  for (const DType dtype : kDTypes) {
    AttentionCase c{.batch = 2, .seqlen_q = kN, .seqlen_k = kN, .num_heads_q = 2, .num_heads_k = 2, .head_dim = kN};
    c.dtype = dtype;
    c.dropout_p = 0.4;
    const Problem problem(c);
    for (int64_t b = 0; b < 2; ++b) {
      for (int64_t i = 0; i < kN; ++i) {
        problem.v().set_row(b, i, 0);
        problem.grad_out().set_row(b, i, 0);
        for (int64_t h = 0; h < 2; ++h) {
          problem.v().set(b, i, h, i, 1);
          problem.grad_out().set(b, i, h, i, 1);
        }
      }
    }
    const auto mask = mask_of(0, 4, kN, kN, c.dropout_p, c.seed, c.offset);
    for_each_kernel(problem.shape(), [&](const KernelSetting& kernel) {
      const Results results = problem.run(kernel);
      for (int64_t e = 0; e < static_cast<int64_t>(mask.size()); ++e) {
        const int64_t b = e / (2 * kN * kN), h = e / (kN * kN) % 2, i = e / kN % kN, j = e % kN;
        const bool kept = mask[e] != 0;
        ASSERT_EQ(results.out[((b * kN + i) * 2 + h) * kN + j] != 0, kept) << kernel.label << " forward, element " << e;
        ASSERT_EQ(results.grad_v[((b * kN + j) * 2 + h) * kN + i] != 0, kept)
            << kernel.label << " backward, element " << e;
      }
    });
  }
}

/// p = 0, and a p so small that its threshold keeps everything, are the same arithmetic.
TEST(Dropout, NothingDroppedIsNoDropout) {
  for (const DType dtype : kDTypes) {
    AttentionCase c{.seqlen_q = 90, .seqlen_k = 77, .num_heads_q = 2, .num_heads_k = 1};
    c.dtype = dtype;
    const Problem without(c);
    c.dropout_p = 1e-6;
    const Problem with(c);
    ASSERT_EQ(dropout_threshold(c.dropout_p), 65536u);
    for_each_deterministic_kernel(c, [&](const KernelSetting& kernel) {
      EXPECT_TRUE(bitwise_equal(without.run(kernel), with.run(kernel))) << kernel.label;
    });
  }
}

TEST(Dropout, KernelsAgainstTheOracle) {
  for (const DType dtype : kDTypes) {
    for (const double p : {0.1, 0.5, 0.9}) {
      AttentionCase c{.batch = 2, .seqlen_q = 75, .seqlen_k = 101, .num_heads_q = 2, .num_heads_k = 1, .head_dim = 32};
      c.dtype = dtype;
      c.dropout_p = p;
      check_case(c);
      c.causal = true;
      c.key_lengths = {60, 101};
      c.lse_gradient = true;
      check_case(c);
    }
  }
}

}  // namespace
}  // namespace strobe::testing
