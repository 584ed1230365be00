// Extreme numbers, and identities that hold whatever the oracle says.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>

#include "tests/attention/problem.h"

namespace strobe::testing {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

AttentionCase small_case(DType dtype) {
  AttentionCase c{.batch = 2, .seqlen_q = 70, .seqlen_k = 90, .num_heads_q = 2, .num_heads_k = 1, .head_dim = 32};
  c.dtype = dtype;
  return c;
}

TEST(Numerics, LargeLogits) {
  for (const DType dtype : kDTypes) {
    for (const bool causal : {false, true}) {
      AttentionCase c = small_case(dtype);
      c.amplitude = 100;
      c.causal = causal;
      check_case(c);
    }
  }
}

TEST(Numerics, TinyLogits) {
  for (const DType dtype : kDTypes) {
    AttentionCase c = small_case(dtype);
    c.amplitude = 1e-20f;
    check_case(c);
  }
}

/// Equal keys: P is uniform, the LSE is the score + log Nk.
TEST(Numerics, EqualLogits) {
  for (const DType dtype : kDTypes) {
    const Problem problem(small_case(dtype));
    for (int64_t b = 0; b < 2; ++b) {
      for (int64_t j = 0; j < 90; ++j) problem.k().set_row(b, j, 0.25);
    }
    const Expectation expectation = expect(problem);
    for_each_kernel(problem.shape(), [&](const KernelSetting& kernel) {
      const Results results = problem.run(kernel);
      check(results, expectation, kernel.label);
      for (int64_t d = 0; d < 32; ++d) {  // query 0 of head 0: the mean of V
        double mean = 0;
        for (int64_t j = 0; j < 90; ++j) mean += problem.v().get(0, j, 0, d) / 90;
        EXPECT_NEAR(results.out[d], mean, expectation.out) << kernel.label;
      }
    });
  }
}

/// V = 1: the rows of P sum to 1, so the output is 1 to 2 ulp.
TEST(Numerics, RowsOfPSumToOne) {
  for (const DType dtype : kDTypes) {
    const double ulp = dtype == DType::kFloat32 ? 0x1p-23 : dtype == DType::kFloat16 ? 0x1p-10 : 0x1p-7;
    for (const int64_t nk : {1, 17, 64, 90, 300}) {
      AttentionCase c = small_case(dtype);
      c.seqlen_k = nk;
      const Problem problem(c);
      for (int64_t b = 0; b < 2; ++b) {
        for (int64_t j = 0; j < nk; ++j) problem.v().set_row(b, j, 1);
      }
      // In fp32 the sum of P V and the sum of P are made of the same Nk rounded terms, added in different orders.
      const double bound = 2 * ulp + (dtype == DType::kFloat32 ? static_cast<double>(nk) * 0x1p-24 : 0);
      for_each_kernel(problem.shape(), [&](const KernelSetting& kernel) {
        for (const double value : problem.run(kernel).out) ASSERT_NEAR(value, 1, bound) << kernel.label << " Nk=" << nk;
      });
    }
  }
}

/// Without a mask the order of the keys does not matter.
TEST(Numerics, KeyPermutation) {
  for (const DType dtype : kDTypes) {
    const AttentionCase c = small_case(dtype);
    const Problem problem(c), permuted(c);
    const auto from = [&](int64_t j) { return (j * 37 + 11) % c.seqlen_k; };
    for (int64_t b = 0; b < c.batch; ++b) {
      for (int64_t j = 0; j < c.seqlen_k; ++j) {
        for (int64_t d = 0; d < c.head_dim; ++d) {
          permuted.k().set(b, j, 0, d, problem.k().get(b, from(j), 0, d));
          permuted.v().set(b, j, 0, d, problem.v().get(b, from(j), 0, d));
        }
      }
    }
    const Expectation expectation = expect(problem);
    for_each_kernel(problem.shape(), [&](const KernelSetting& kernel) {
      const Results got = permuted.run(kernel);
      Results restored = got;
      for (int64_t b = 0; b < c.batch; ++b) {
        for (int64_t j = 0; j < c.seqlen_k; ++j) {
          const auto row = [&](int64_t key) { return (b * c.seqlen_k + key) * c.head_dim; };
          std::copy_n(got.grad_k.begin() + row(j), c.head_dim, restored.grad_k.begin() + row(from(j)));
          std::copy_n(got.grad_v.begin() + row(j), c.head_dim, restored.grad_v.begin() + row(from(j)));
        }
      }
      check(restored, expectation, kernel.label + " permuted");
    });
  }
}

/// One element of one input, and what becomes of it.
struct Injection {
  const char* input;
  double value;
};

const Tensor& input_of(const Problem& problem, const std::string& name) {
  return name == "q" ? problem.q() : name == "k" ? problem.k() : name == "v" ? problem.v() : problem.grad_out();
}

/// NaN and infinities in what is visible make exactly those results not finite that the definition says.
TEST(Numerics, VisibleNanAndInfReachTheResults) {
  const Injection injections[] = {{"q", kNaN}, {"k", kNaN},  {"v", kNaN}, {"grad_out", kNaN}, {"q", kInf},
                                  {"k", kInf}, {"k", -kInf}, {"v", kInf}, {"v", -kInf},       {"grad_out", kInf}};
  for (const DType dtype : kDTypes) {
    if (kEmulated && dtype != DType::kFloat16) continue;
    for (const bool causal : {false, true}) {
      for (const int64_t num_heads_k : {1, 2}) {  // kernels for short sequences are not for grouped heads
        for (const Injection& injection : injections) {
          if (kEmulated && (causal == (injection.value < 0) || num_heads_k == 1)) continue;
          AttentionCase c = small_case(dtype);
          c.causal = causal;
          c.num_heads_k = num_heads_k;
          c.key_lengths = {77, 90};  // hidden keys beside visible ones in a tile of 16
          const Problem problem(c);
          input_of(problem, injection.input).set(0, 33, 0, 5, injection.value);
          const Expectation expectation = expect(problem);
          std::ostringstream label;
          label << injection.value << " in " << injection.input << ": " << c;
          for_each_kernel(problem.shape(), [&](const KernelSetting& kernel) {
            check(problem.run(kernel), expectation, kernel.label + ' ' + label.str(), NonFinite::kAnyKind);
          });
        }
      }
    }
  }
}

/// A query whose every score is a NaN is no row without keys.
TEST(Numerics, ANanRowHasANanLse) {
  for (const DType dtype : kDTypes) {
    const Problem problem(small_case(dtype));
    problem.q().set_row(0, 7, kNaN);
    for_each_kernel(problem.shape(), [&](const KernelSetting& kernel) {
      const Results results = problem.run(kernel);
      EXPECT_TRUE(std::isnan(results.softmax_lse[7])) << kernel.label;
      EXPECT_TRUE(std::isnan(results.out[7 * 2 * 32])) << kernel.label;
      EXPECT_TRUE(std::isfinite(results.softmax_lse[6])) << kernel.label;
    });
  }
}

}  // namespace
}  // namespace strobe::testing
