// Long sequences, which only a device's oracle makes quick, and that oracle against the CPU's.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <utility>
#include <vector>

#include "tests/attention/oracle_cuda.h"
#include "tests/attention/problem.h"

namespace strobe::testing {
namespace {

constexpr Oracle kCudaOracle{cuda_reference_forward, cuda_reference_backward};

/// Sums of doubles in the same order; what differs is the last bits of exp and log.
void expect_close(const char* tensor, const std::vector<double>& found, const std::vector<double>& expected,
                  double relative) {
  ASSERT_EQ(found.size(), expected.size()) << tensor;
  double largest = 0;
  for (const double x : expected) largest = std::isfinite(x) ? std::max(largest, std::fabs(x)) : largest;
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (std::isfinite(expected[i])) {
      ASSERT_NEAR(found[i], expected[i], relative * largest) << tensor << '[' << i << ']';
    } else {
      ASSERT_EQ(std::isnan(found[i]), std::isnan(expected[i])) << tensor << '[' << i << ']';
      ASSERT_EQ(std::isinf(found[i]), std::isinf(expected[i])) << tensor << '[' << i << ']';
    }
  }
}

/// The plain formula's bounds for a kernel, from either oracle, agree to this factor: a rounding to the type now and
/// then falls the other way.
constexpr double kBoundFactor = 1.5;

void expect_same(const AttentionCase& c) {
  std::ostringstream text;
  text << c;
  SCOPED_TRACE(text.str());
  const Problem problem(c);
  const Expectation cpu = expect(problem), cuda = expect(problem, kCudaOracle);
  constexpr double kRelative = 1e-12;
  expect_close("out", cuda.oracle.out, cpu.oracle.out, kRelative);
  expect_close("softmax_lse", cuda.oracle.softmax_lse, cpu.oracle.softmax_lse, kRelative);
  expect_close("grad_q", cuda.oracle.grad_q, cpu.oracle.grad_q, kRelative);
  expect_close("grad_k", cuda.oracle.grad_k, cpu.oracle.grad_k, kRelative);
  expect_close("grad_v", cuda.oracle.grad_v, cpu.oracle.grad_v, kRelative);
  expect_close("bound of softmax_lse", cuda.softmax_lse, cpu.softmax_lse, kRelative);
  const std::pair<double, double> bounds[] = {
      {cuda.out, cpu.out}, {cuda.grad_q, cpu.grad_q}, {cuda.grad_k, cpu.grad_k}, {cuda.grad_v, cpu.grad_v}};
  for (const auto& [found, expected] : bounds) {
    EXPECT_LE(found, kBoundFactor * expected);
    EXPECT_LE(expected, kBoundFactor * found);
  }
}

TEST(CudaOracle, IsTheCpus) {
  for (const DType dtype : kDTypes) {
    AttentionCase c{.batch = 2, .seqlen_q = 67, .seqlen_k = 93, .num_heads_q = 4, .num_heads_k = 2, .head_dim = 24};
    c.dtype = dtype;
    expect_same(c);
    c.causal = true;
    c.lse_gradient = true;
    c.dropout_p = 0.2;
    expect_same(c);
    c.layout = Layout::kPadded;
    c.key_lengths = {93, 0};
    c.query_lengths = {30, 67};
    c.window_left = 20;
    expect_same(c);
  }
  AttentionCase varlen{.batch = 3, .seqlen_q = 80, .seqlen_k = 80, .num_heads_q = 2, .num_heads_k = 1};
  varlen.dtype = DType::kFloat16;
  varlen.lengths_q = {80, 0, 17};
  varlen.lengths_k = {33, 5, 79};
  varlen.spare_tokens = 3;
  expect_same(varlen);
}

TEST(LongSequences, OneMask) {
  for (const int64_t head_dim : {64, 128, 256}) {
    for (const bool causal : {false, true}) {
      AttentionCase c{.seqlen_q = 2500, .seqlen_k = 2500, .num_heads_q = 2, .num_heads_k = 2, .head_dim = head_dim};
      c.causal = causal;
      c.dtype = kDTypes[(head_dim / 64 + causal) % 2];
      check_case(c, kCudaOracle);
      c.dtype = kDTypes[(head_dim / 64 + causal + 1) % 2];
      c.seqlen_k = 3333;
      check_case(c, kCudaOracle);
    }
  }
}

TEST(LongSequences, Longest) {
  for (const DType dtype : kDTypes) {
    check_case({.seqlen_q = 16384, .seqlen_k = 16384, .dtype = dtype}, kCudaOracle);
    check_case({.seqlen_q = 16001, .seqlen_k = 16001, .head_dim = 128, .dtype = dtype, .causal = true}, kCudaOracle);
  }
}

TEST(LongSequences, WindowsAndDropout) {
  for (const int64_t head_dim : {64, 96, 128, 256}) {
    AttentionCase c{.seqlen_q = 3000, .seqlen_k = 4100, .num_heads_q = 2, .num_heads_k = 1, .head_dim = head_dim};
    c.dtype = kDTypes[head_dim / 32 % 2];
    c.window_left = 700;
    c.window_right = 130;
    c.lse_gradient = true;
    check_case(c, kCudaOracle);
    c.dropout_p = 0.1;
    c.window_left = -1;
    c.layout = Layout::kBHND;
    check_case(c, kCudaOracle);
  }
}

TEST(LongSequences, Varlen) {
  for (const int64_t head_dim : {64, 80, 128, 256}) {
    AttentionCase c{.batch = 5, .seqlen_q = 4096, .seqlen_k = 4096, .num_heads_q = 2, .num_heads_k = 1};
    c.head_dim = head_dim;
    c.dtype = kDTypes[head_dim / 64 % 2];
    c.layout = Layout::kPacked;
    c.lengths_q = c.lengths_k = {1000, 1, 0, 4096, 129};
    c.spare_tokens = 7;
    check_case(c, kCudaOracle);
    c.causal = true;
    c.dtype = kDTypes[head_dim / 64 % 2 == 0];
    check_case(c, kCudaOracle);
  }
}

}  // namespace
}  // namespace strobe::testing
