// The oracle itself: its gradients against finite differences of its forward, and forwards that can be worked out by
// hand.
#include "src/attention/reference.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>

#include "tests/attention/problem.h"

namespace strobe::testing {
namespace {

using reference::Arithmetic;

/// sum(O * dO) + sum(LSE * dLSE), whose gradient the backward computes. Rows without keys have no part in it.
double loss(const Problem& problem, const std::vector<double>& grad_out, const float* grad_lse) {
  const auto forward = reference::forward(problem.fwd_params(Algorithm::kImpFlashAttn), Arithmetic::kExact);
  double sum = 0;
  for (std::size_t e = 0; e < grad_out.size(); ++e) {
    if (!std::isnan(grad_out[e])) sum += forward.out[e] * grad_out[e];
  }
  for (std::size_t row = 0; grad_lse != nullptr && row < forward.softmax_lse.size(); ++row) {
    if (std::isfinite(forward.softmax_lse[row])) sum += forward.softmax_lse[row] * grad_lse[row];
  }
  return sum;
}

/// Every element of one input by central differences at h and 2 h, extrapolated: the error is of order h^4.
void check_gradient(const Problem& problem, const Tensor& input, const std::vector<double>& gradient) {
  constexpr double kStep = 0x1p-9;
  const std::vector<double> grad_out = problem.grad_out().compact();
  const float* grad_lse = problem.bwd_params(Algorithm::kImpFlashAttn).grad_softmax_lse;
  std::size_t e = 0;
  for (int64_t b = 0; b < input.batch; ++b) {
    for (int64_t i = 0; i < input.rows; ++i) {
      for (int64_t h = 0; h < input.heads; ++h) {
        for (int64_t d = 0; d < input.head_dim; ++d, ++e) {
          const double value = input.get(b, i, h, d);
          if (std::isnan(value)) {
            EXPECT_EQ(gradient[e], 0) << "of a hidden element: " << problem.shape();
            continue;
          }
          const auto slope = [&](double step) {
            input.set(b, i, h, d, value + step);
            const double right = input.get(b, i, h, d), right_loss = loss(problem, grad_out, grad_lse);
            input.set(b, i, h, d, value - step);
            const double left = input.get(b, i, h, d), left_loss = loss(problem, grad_out, grad_lse);
            return (right_loss - left_loss) / (right - left);
          };
          const double expected = (4 * slope(kStep) - slope(2 * kStep)) / 3;
          input.set(b, i, h, d, value);
          ASSERT_NEAR(gradient[e], expected, 1e-7) << "element " << e << ": " << problem.shape();
        }
      }
    }
  }
}

TEST(Reference, GradientsAreThoseOfFiniteDifferences) {
  const AttentionCase cases[] = {
      {.batch = 2,
       .seqlen_q = 5,
       .seqlen_k = 4,
       .num_heads_q = 2,
       .num_heads_k = 1,
       .head_dim = 8,
       .lse_gradient = true},
      {.seqlen_q = 6,
       .seqlen_k = 4,
       .num_heads_q = 2,
       .num_heads_k = 2,
       .head_dim = 8,
       .causal = true,
       .dropout_p = 0.4},
      {.seqlen_q = 5, .seqlen_k = 7, .head_dim = 16, .window_left = 2, .window_right = 1, .lse_gradient = true},
      {.batch = 3,
       .seqlen_q = 4,
       .seqlen_k = 5,
       .num_heads_q = 2,
       .num_heads_k = 1,
       .head_dim = 8,
       .causal = true,
       .key_lengths = {5, 0, 2},
       .query_lengths = {4, 3, 2},
       .dropout_p = 0.25,
       .lse_gradient = true},
      {.batch = 3,
       .seqlen_q = 4,
       .seqlen_k = 5,
       .num_heads_q = 2,
       .num_heads_k = 2,
       .head_dim = 8,
       .causal = true,
       .lengths_q = {4, 0, 2},
       .lengths_k = {3, 2, 5},
       .spare_tokens = 2,
       .dropout_p = 0.25,
       .lse_gradient = true},
  };
  for (const AttentionCase& c : cases) {
    const Problem problem(c);
    const auto gradient = reference::backward(problem.bwd_params(Algorithm::kImpFlashAttn), Arithmetic::kExact);
    check_gradient(problem, problem.q(), gradient.grad_q);
    check_gradient(problem, problem.k(), gradient.grad_k);
    check_gradient(problem, problem.v(), gradient.grad_v);
  }
}

TEST(Reference, ForwardOfTwoKeys) {
  const Problem problem({.seqlen_q = 1, .seqlen_k = 2, .head_dim = 8, .softmax_scale = 1.0f});
  for (int64_t d = 0; d < 8; ++d) {
    problem.q().set(0, 0, 0, d, d == 0 ? 1 : 0);
    problem.k().set(0, 0, 0, d, 0);
    problem.k().set(0, 1, 0, d, d == 0 ? 2 : 0);
    problem.v().set(0, 0, 0, d, 1);
    problem.v().set(0, 1, 0, d, 3);
  }
  const auto forward = reference::forward(problem.fwd_params(Algorithm::kImpFlashAttn), Arithmetic::kExact);
  EXPECT_NEAR(forward.softmax_lse[0], std::log(1 + std::exp(2.0)), 1e-15);
  for (const double value : forward.out) EXPECT_NEAR(value, (1 + 3 * std::exp(2.0)) / (1 + std::exp(2.0)), 1e-14);
}

/// The visible pairs of the definition in strobe/attention.h, spelt out: 4 queries, 6 keys, diagonal at j = i + 2.
TEST(Reference, VisiblePairs) {
  struct Example {
    AttentionCase shape;
    std::vector<std::string> visible;
  };
  const Example examples[] = {
      {{.seqlen_q = 4, .seqlen_k = 6, .head_dim = 8, .causal = true}, {"111000", "111100", "111110", "111111"}},
      {{.seqlen_q = 6, .seqlen_k = 4, .head_dim = 8, .causal = true}, {"0000", "0000", "1000", "1100", "1110", "1111"}},
      {{.seqlen_q = 4, .seqlen_k = 6, .head_dim = 8, .window_left = 1, .window_right = 0},
       {"011000", "001100", "000110", "000011"}},
      {{.seqlen_q = 4, .seqlen_k = 6, .head_dim = 8, .causal = true, .window_right = 3},
       {"111000", "111100", "111110", "111111"}},
      {{.seqlen_q = 4, .seqlen_k = 6, .head_dim = 8, .causal = true, .key_lengths = {4}},
       {"111000", "111100", "111100", "111100"}},
      {{.seqlen_q = 4, .seqlen_k = 6, .head_dim = 8, .window_right = 1, .query_lengths = {2}},
       {"111100", "111110", "000000", "000000"}},
  };
  for (const Example& example : examples) {
    const Problem problem(example.shape);
    for (int64_t j = 0; j < example.shape.seqlen_k; ++j) {  // one-hot values: out is P
      for (int64_t d = 0; d < 8; ++d) problem.v().set(0, j, 0, d, d == j ? 1 : 0);
    }
    const auto forward = reference::forward(problem.fwd_params(Algorithm::kImpFlashAttn), Arithmetic::kExact);
    for (int64_t i = 0; i < example.shape.seqlen_q; ++i) {
      std::string row;
      for (int64_t j = 0; j < example.shape.seqlen_k; ++j) row += forward.out[i * 8 + j] > 0 ? '1' : '0';
      EXPECT_EQ(row, example.visible[i]) << "row " << i << ": " << example.shape;
      const bool empty = row.find('1') == std::string::npos;
      EXPECT_EQ(forward.softmax_lse[i] == -std::numeric_limits<double>::infinity(), empty) << example.shape;
    }
  }
}

}  // namespace
}  // namespace strobe::testing
